"""`CaptureSession`: one capture of a device, of a relay or of a log, with no knowledge of who asked for it.

Two threads: the worker connects and captures, and may hang in a connection attempt; the supervisor waits for messages
and for the deadline, and ends the capture in bounded time whatever the worker is doing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from usbip_capture.capture.sinks import ReaderGone, Sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.capture_session.device_log import DeviceLog
from usbip_capture.capture_session.events import ForwardedEvents, SessionEvents
from usbip_capture.capture_session.output import Output
from usbip_capture.capture_session.relayed import Relayed
from usbip_capture.capture_session.settings import LOG_ALONE, RELAY, SERVER, USBMON, CaptureSettings
from usbip_capture.errors import CaptureError, ServerLost, ServerUnreachable, UsbipError
from usbip_capture.live.joining import OVER, JoinedCapture
from usbip_capture.probe import ProbeGroup, ProbeSettings
from usbip_capture.system.latch import Latch

if TYPE_CHECKING:
    from usbip_capture.capture_session.streamed import Streamed
    from usbip_capture.remote_usbmon.group import WatchedGroup
    from usbip_capture.server_stream.capture import StreamedCapture

log = logging.getLogger(__name__)

# States, in this order
NEW, CONNECTING, CAPTURING, ENDED = "new", "connecting", "capturing", "ended"
# What ended a session: `stop`, its time, its output (no reader, an error, enough packets), or what is captured
BY_STOP, BY_DURATION, BY_OUTPUT, BY_SOURCE = "stop", "duration", "output", "source"
# Further messages to the supervisor
_IMPORTING, _STARTED = "importing", "started"


class CaptureSession:
    """One capture; not to be used again.

    settings: what to capture, or what returns it, called when an output that waits is open: if it raises UsbipError,
    the output still gets an empty capture. release_timeout: seconds that devices have to be released at the end.
    flush: seconds without progress and at most that the output has then; None waits for it, except where the capture
    ended by itself.

    writer: the capture and its counters; None before it begins. captured: there was something to capture.
    error: what ended the capture, or was wrong with it. output_error: why the output is not complete.
    ended_by: BY_STOP, BY_DURATION, BY_OUTPUT or BY_SOURCE when `state` is ENDED.
    """

    def __init__(
        self,
        settings: CaptureSettings | Callable[[], CaptureSettings],
        events: SessionEvents | None = None,
        *,
        release_timeout: float = 1.0,
        flush: tuple[float, float] | None = None,
    ) -> None:
        self.state = NEW
        self.error: Exception | None = None
        self.output_error: CaptureError | None = None
        self.ended_by = ""
        self.captured = False
        self.writer: PcapWriter | JoinedCapture | StreamedCapture | None = None
        self._given = settings
        self._events = events or SessionEvents()
        self._release_timeout = release_timeout
        self._flush = flush
        self._settings: CaptureSettings | None = None
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._stopping = threading.Event()
        self._begun = Latch()  # captures, or has ended
        self._ended = Latch()
        self._lock = threading.Lock()
        self._closed = False
        self._early: list[str] = []
        self._listen: frozenset[int] | None = None
        self._group: ProbeGroup | WatchedGroup | None = None
        self._device_log: DeviceLog | None = None
        self._joined: Relayed | Streamed | None = None

    def start(self, output: Output) -> None:
        """Begin; returns at once. Raises UsbipError if this system starts no more threads."""
        self.state = CONNECTING
        worker = threading.Thread(target=self._work, args=(output,), name="usbip-session", daemon=True)
        supervisor = threading.Thread(target=self._supervise, args=(worker,), name="usbip-supervisor", daemon=True)
        try:
            supervisor.start()
        except RuntimeError as error:
            self.error = UsbipError(f"the capture cannot start: {error}: end other programs")
            self._end()
            raise self.error from error

    def stop(self) -> None:
        """End the capture; returns at once (see `wait`). From any thread, and from a signal handler."""
        self._messages.put(BY_STOP)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, and its output is complete; waits for that, at most `timeout` seconds."""
        return self._ended.wait(timeout)

    def wait_until_capturing(self) -> bool:
        """Wait until the device is captured, or the session has ended without; whether it is or was captured."""
        self._begun.wait()
        return self.captured

    @property
    def missing(self) -> list[UsbipError]:
        """Why some of several devices could not be imported."""
        return self._group.missing if self._group is not None else []

    def comment(self, text: str) -> None:
        """Write a comment at this moment of the capture, or at its beginning if it has not begun yet."""
        with self._lock:
            if self.writer is None:
                self._early.append(text)
                return
        self.writer.comment(text)

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these IN endpoints from now on, None for all."""
        self._listen = chosen
        if isinstance(self._group, ProbeGroup):
            self._group.listen_to(chosen)

    def drop_client(self, number: int) -> None:
        """Disconnect a client of the relay, or of the server that was joined."""
        if self._joined is not None:
            self._joined.drop(number)

    def reset_device(self, number: int) -> None:
        """Reset the device that this client has of the server that was joined."""
        if self._joined is not None and not isinstance(self._joined, Relayed):
            self._joined.reset(number)

    # -- the supervisor's thread

    def _supervise(self, worker: threading.Thread) -> None:
        try:
            worker.start()
        except RuntimeError as error:
            self.error = UsbipError(f"the capture cannot start: {error}: end other programs")
            self.ended_by = BY_SOURCE
        else:
            self.ended_by = self._reason()
            self._stopping.set()
            if self._group is not None:
                self._group.stop()
            worker.join(self._release_timeout)
        try:
            self._close()
        except CaptureError as error:
            self.output_error = error
        except Exception as error:  # nobody else would end the session
            log.exception("the capture was not completed")
            self.error = self.error or error
        self._end()

    def _reason(self) -> str:
        """What ends the capture; returns when it is to end."""
        deadline, started = None, False
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                message = self._messages.get(timeout=left)
            except Empty:
                if not started:
                    self.error = ServerUnreachable(
                        f"{self._required().server} does not answer within the {self._duration:g} s of --duration"
                    )
                    return BY_SOURCE
                return BY_DURATION
            if message == _IMPORTING or (message == _STARTED and not started):
                started = message == _STARTED
                if self._duration and (started or self._required().connecting_counts):
                    deadline = time.monotonic() + self._duration
            elif message != _STARTED:
                return message

    def _close(self) -> None:
        """Complete the capture. Raises CaptureError."""
        with self._lock:
            self._closed, writer = True, self.writer
        if self._device_log is not None:
            if self.captured and self.error is None and self.ended_by != BY_STOP:
                self._linger()
            self._device_log.stop()
        try:
            if writer is not None:
                writer.close(*(self._flush if self._flush is not None and self.ended_by != BY_SOURCE else ()))
        finally:
            if self._joined is not None:  # now that it has sent the last counts
                self._joined.close()

    def _linger(self) -> None:
        """Read the log a little longer, unless stopped."""
        until = time.monotonic() + self._required().log_linger
        while (left := until - time.monotonic()) > 0:
            try:
                if self._messages.get(timeout=left) == BY_STOP:
                    return
            except Empty:
                return

    def _end(self) -> None:
        self.state = ENDED
        self._begun.set()
        self._ended.set()
        try:
            self._events.ended()
        except Exception:
            log.exception("the end of a capture could not be reported")

    # -- the worker's thread

    def _work(self, output: Output) -> None:
        try:
            self._capture(output)
        except ReaderGone:
            pass
        except UsbipError as error:
            self.error = self.error or error
        except Exception as error:
            log.exception("the session failed")
            self.error = self.error or error
        finally:
            if self._group is not None and not isinstance(self._group, ProbeGroup):
                self._group.close()
        self._messages.put(BY_SOURCE)

    def _capture(self, output: Output) -> None:
        sink = output.open(self._stopping) if output.at_once else None
        try:
            settings = self._settings = self._given() if callable(self._given) else self._given
            if settings.choices.mode in (RELAY, SERVER):
                self._capture_joined(sink, output, settings)
                return
            if sink is not None:
                self._open(sink)
        except BaseException:
            if sink is not None and self.writer is None:
                self._open(sink)  # empty, but a capture
            raise
        device_log = self._device_log = DeviceLog(settings, self._events.log_message)
        self._start_log(device_log)
        group = None if settings.choices.mode == LOG_ALONE else self._connected(settings)
        if self._stopping.is_set():
            return
        if self.writer is None:
            self._open(output.open(self._stopping))
        self._start_log(device_log)
        if group is None:
            self._wait_for_the_end()
        elif isinstance(self.writer, PcapWriter):
            self._report_capturing()
            group.run(self.writer)

    def _connected(self, settings: CaptureSettings) -> ProbeGroup | WatchedGroup:
        """The devices, imported, or watched where others use them. Raises UsbipError."""
        if settings.choices.mode == USBMON:
            return self._watched(settings)
        choices, server = settings.choices, settings.required_server()
        wanted = ProbeSettings(choices.descriptors, choices.listen_in, choices.reconnect)
        log.info("capturing %s %s, %s", server, settings.devices, wanted)
        events = ForwardedEvents(
            server, self._events, lambda: self._messages.put(_STARTED), remembers=settings.remembers
        )
        group = self._group = ProbeGroup(server, settings.devices, wanted, events)
        if self._stopping.is_set():  # who stops did not see it yet
            group.stop()
        self._messages.put(_IMPORTING)
        group.connect()
        if self._listen is not None:  # chosen before there was anybody to hear of it
            group.listen_to(self._listen)
        return group

    def _watched(self, settings: CaptureSettings) -> WatchedGroup:
        # Imported here: the other modes do not need it.
        from usbip_capture.remote_usbmon.group import WatchedGroup
        from usbip_capture.remote_usbmon.settings import UsbmonSettings

        choices, server = settings.choices, settings.required_server()
        wanted = UsbmonSettings(choices.snaplen, choices.descriptors, choices.reconnect)
        log.info("watching %s at %s, %s", settings.devices, server, wanted)
        group = self._group = WatchedGroup(server, settings.devices, wanted, self._events.activity)
        if self._stopping.is_set():
            group.stop()
        self._messages.put(_IMPORTING)
        group.connect()
        self._messages.put(_STARTED)
        return group

    def _capture_joined(self, sink: Sink | None, output: Output, settings: CaptureSettings) -> None:
        """Capture what passes a relay or a server, until stopped; that goes on. Raises UsbipError."""
        if settings.choices.mode == RELAY:
            relayed = self._joined = Relayed(settings, self._events)
            self._begin(relayed.join(sink or output.open(self._stopping), self._on_end))
        else:
            # Imported here: no other capture needs HTTP.
            from usbip_capture.capture_session.streamed import Streamed

            streamed = self._joined = Streamed(settings, self._events)
            self._begin(streamed.join(lambda: sink or output.open(self._stopping), self._on_end))
            self._device_log = DeviceLog(settings, self._events.log_message)
            self._start_log(self._device_log)
        self._wait_for_the_end()

    def _wait_for_the_end(self) -> None:
        self._messages.put(_STARTED)
        self._report_capturing()
        self._stopping.wait()

    def _report_capturing(self) -> None:
        self.captured, self.state = True, CAPTURING
        self._events.capturing()
        self._begun.set()

    def _start_log(self, device_log: DeviceLog) -> None:
        writer = self.writer
        if writer is not None and not isinstance(writer, JoinedCapture) and device_log.start(writer):
            self._events.log_started()

    def _open(self, sink: Sink) -> None:
        settings = self._settings
        if settings is None:
            self._begin(PcapWriter(sink))
            return
        choices = settings.choices
        self._begin(
            PcapWriter(
                sink,
                snaplen=choices.snaplen,
                capture_filter=settings.capture_filter,
                max_packets=choices.count,
                record_unlinks=choices.record_unlinks,
                on_end=self._on_end,
            )
        )

    def _begin(self, writer: PcapWriter | JoinedCapture | StreamedCapture) -> None:
        with self._lock:
            closed = self._closed
            self.writer, early = writer, self._early
        for text in early:
            writer.comment(text)
        if closed:  # it took longer than the session had to end
            writer.close(*(self._flush or ()))

    def _on_end(self, reason: str) -> None:
        log.info("the capture's output ended: %s", reason)
        if reason == OVER:
            what = "relay" if isinstance(self._joined, Relayed) else "server"
            loss = None if self.writer is None or isinstance(self.writer, PcapWriter) else self.writer.loss
            self.error = loss or ServerLost(f"the {what} has ended: what was captured until then is kept")
        self._messages.put(BY_SOURCE if reason == OVER else BY_OUTPUT)

    # -- either

    def _required(self) -> CaptureSettings:
        assert self._settings is not None, "only asked once the worker has read them"
        return self._settings

    @property
    def _duration(self) -> float:
        return self._settings.choices.duration if self._settings is not None else 0.0
