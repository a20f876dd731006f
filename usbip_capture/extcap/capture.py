"""The capture process: opens the pipe, runs the session on a thread of its own, and ends when anybody says so.

The main thread only waits for messages: a signal handler may do no more than leave one, and a session that hangs in a
connection attempt must not keep the process from ending.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
import warnings
from queue import Empty, SimpleQueue

from usbip_capture.capture.sinks import ReaderGone, Sink, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.discovery.known import find_interface
from usbip_capture.errors import CaptureError, LocalProtocolError, UsbipError
from usbip_capture.extcap import arguments, logs, queries
from usbip_capture.extcap.argv import value_of
from usbip_capture.extcap.device_log import ALONE, LISTEN, OFF, DeviceLog
from usbip_capture.extcap.followers import CaptureEvents
from usbip_capture.extcap.relayed import RELAY, Relayed
from usbip_capture.extcap.toolbar import Toolbar
from usbip_capture.hosts import Server
from usbip_capture.live import registry
from usbip_capture.live.joining import OVER, JoinedCapture
from usbip_capture.options import INTERFACE, Choices
from usbip_capture.probe import ProbeGroup, ProbeSettings

log = logs.log

#: Seconds that the session has to give the device back when the capture is stopped.
_RELEASE_TIMEOUT = 0.3
#: Seconds in which what is queued must find its way into the pipe then: without progress, and at most.
_FLUSH_TIMEOUT = 0.15
_FLUSH_AT_MOST = 0.1
#: Windows cannot interrupt a wait for a signal.
_LOOK_EVERY = 0.2 if os.name == "nt" else None

# Messages to the main thread
_STARTED, _STOP, _ENDED = "started", "stop", "ended"


class CaptureProcess:
    """One capture. stopped: somebody else ended it. misused: its sentence is about the arguments."""

    def __init__(self, argv: list[str], control_in: int | None = None) -> None:
        self.stopped = False
        self.misused = False
        self.writer: PcapWriter | JoinedCapture | None = None
        self._argv = argv
        self._toolbar = Toolbar(control_in, value_of(argv, "--extcap-control-out"), self)
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._stopping = threading.Event()
        self._group: ProbeGroup | None = None
        self._device_log: DeviceLog | None = None
        self._relayed: Relayed | None = None
        self._listen: frozenset[int] | None = None
        self._lock = threading.Lock()
        self._early: list[str] = []
        self._duration = 0.0
        self._sentence = ""

    def run(self) -> str:
        """Capture until stopped; the sentence that says what went wrong, empty if nothing did."""
        warnings.simplefilter("ignore")
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, lambda *_: self.quit())
        self._toolbar.start()
        worker = threading.Thread(target=self._work, name="usbip-session", daemon=True)
        worker.start()
        self._wait()
        self._stopping.set()
        if self._group is not None:
            self._group.stop()
        worker.join(_RELEASE_TIMEOUT)
        self._toolbar.ended()
        return self._close() or (self._missing() if self.stopped else self._sentence)

    def quit(self) -> None:
        """End the capture; from any thread, and from a signal handler."""
        self._messages.put(_STOP)

    def comment(self, text: str) -> None:
        """Say something at this moment of the capture, or at its beginning if it has not begun yet."""
        with self._lock:
            if self.writer is None:
                self._early.append(text)
                return
        self.writer.comment(text)

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these IN endpoints from now on, None for all."""
        self._listen = chosen
        if self._group is not None:
            self._group.listen_to(chosen)

    def drop_client(self, number: int) -> None:
        """Break off a client of the relay."""
        if self._relayed is not None:
            self._relayed.drop(number)

    def _wait(self) -> None:
        """Until the capture is to end."""
        deadline = None
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                message = self._messages.get(timeout=_shorter(left, _LOOK_EVERY))
            except Empty:
                if deadline is None or time.monotonic() < deadline:
                    continue
                message = _STOP
            if message == _STARTED and self._duration and deadline is None:
                deadline = time.monotonic() + self._duration
            elif message == _STOP:
                self.stopped = True
                return
            elif message == _ENDED:
                return

    def _missing(self) -> str:
        """What is to be said even when all went well until somebody ended it."""
        return str(self._group.missing[0]) if self._group is not None and self._group.missing else ""

    def _close(self) -> str:
        """Complete the capture; what went wrong with it."""
        writer = self.writer
        if writer is None:
            return ""
        if self._device_log is not None:
            self._device_log.stop()
        try:
            writer.close(*((_FLUSH_TIMEOUT, _FLUSH_AT_MOST) if self.stopped else ()))
        except CaptureError as error:
            return self._sentence or str(error)
        log.info("%d packets, %d dropped, %d filtered", writer.received, writer.dropped, writer.filtered)
        logs.tell(f"{writer.written} packets, {writer.dropped} dropped, in {value_of(self._argv, '--fifo')}")
        return ""

    # -- the session's thread

    def _work(self) -> None:
        try:
            self._capture()
        except ReaderGone:
            pass
        except UsbipError as error:
            self._sentence = str(error)
            self.misused = isinstance(error, LocalProtocolError)
        except Exception as error:
            log.exception("the session failed")
            self._sentence = f"the capture ended because of our own fault: {type(error).__name__}: {error}"
        self._messages.put(_ENDED)

    def _capture(self) -> None:
        fifo = value_of(self._argv, "--fifo")
        if not fifo:
            arguments.parse(self._argv)  # a misspelt --fifo is not a missing one
            raise LocalProtocolError("nowhere to write the capture: use --fifo with a file, a named pipe or -")
        # A pipe is opened first of all, and in spite of all that is wrong: Wireshark 4.0 waits for that for ever.
        # A file may be a capture that is worth something, and is not touched before there is a device.
        sink = None if _is_file(fifo) else open_sink(fifo, self._stopping)
        wrong, choices = self._choices()
        if sink is not None and (wrong or choices.mode != RELAY):
            self._open(sink, Choices({}) if wrong else choices)
        if wrong:
            raise LocalProtocolError(wrong)
        logs.start(choices, self._toolbar.log_handler())
        if choices.mode == RELAY:
            self._capture_relay(sink or open_sink(fifo), choices)
            return
        device_log = self._device_log = DeviceLog(choices, self._toolbar.show_line)
        self._start_log(device_log)
        if choices.mode == ALONE:
            self._capture_log(device_log, choices, fifo)
            return
        group = self._group = self._session(choices)
        if self._listen is not None:
            group.listen_to(self._listen)
        group.connect()
        if self.writer is None:
            self._open(open_sink(fifo), choices)
        self._start_log(device_log)
        if isinstance(self.writer, PcapWriter):
            logs.tell(f"Capturing {choices.host}; Ctrl-C stops.")
            group.run(self.writer)

    def _capture_log(self, device_log: DeviceLog, choices: Choices, fifo: str) -> None:
        """Capture the device's log alone, until stopped."""
        if self.writer is None:
            self._open(open_sink(fifo), choices)
        self._start_log(device_log)
        self._duration = choices.duration
        self._messages.put(_STARTED)
        logs.tell("Capturing the log; Ctrl-C stops.")
        self._stopping.wait()

    def _start_log(self, device_log: DeviceLog) -> None:
        if isinstance(self.writer, PcapWriter):
            device_log.start(self.writer)

    def _capture_relay(self, sink: Sink, choices: Choices) -> None:
        """Capture what a relay forwards, until stopped; the relay goes on."""
        entry = registry.find(value_of(self._argv, "--extcap-interface") or "")
        self._toolbar.clients.relaying = True
        relayed = self._relayed = Relayed(
            choices, entry, self._toolbar.clients, lambda text: self._toolbar.state(self, text)
        )
        try:
            joined = relayed.join(sink, value_of(self._argv, "--extcap-capture-filter") or "", self._on_end)
        except UsbipError:
            self._open(sink, choices)  # empty, but a capture
            raise
        self._begin(joined)
        self._duration = choices.duration
        self._messages.put(_STARTED)
        logs.tell("Capturing what the relay forwards; Ctrl-C stops.")
        self._stopping.wait()

    def _open(self, sink: Sink, choices: Choices) -> None:
        capture_filter = value_of(self._argv, "--extcap-capture-filter") or ""
        writer = PcapWriter(
            sink,
            snaplen=choices.snaplen,
            capture_filter="" if queries.refusal(capture_filter) else capture_filter,
            max_packets=choices.count,
            record_unlinks=choices.record_unlinks,
            on_end=self._on_end,
        )
        self._begin(writer)

    def _begin(self, writer: PcapWriter | JoinedCapture) -> None:
        with self._lock:
            self.writer, early = writer, self._early
        for text in early:
            writer.comment(text)

    def _choices(self) -> tuple[str, Choices]:
        """What was chosen, and what is wrong with it."""
        try:
            namespace = arguments.parse(self._argv)
            if namespace.help:
                raise LocalProtocolError("--help explains and captures nothing: leave --capture and --fifo out")
            choices = Choices(arguments.given(namespace))
            interface = value_of(self._argv, "--extcap-interface")
            if interface is None:  # a person, who need not know what it is called
                interface = INTERFACE
            wrong = queries.unknown_interface(interface)
            if interface and not wrong and registry.find(interface):
                choices.mode = RELAY
                return _unfit(choices), choices
            server = find_interface(interface) if interface and not wrong else None
            if server is not None:
                wrong = _conflict(choices, server.host) if choices.host else ""
                choices.host, choices.port = server.host, server.port
        except LocalProtocolError as error:
            return str(error), Choices({})
        needs_server = choices.mode != ALONE or choices.syslog != LISTEN
        if not wrong and needs_server and not choices.host.strip():
            wrong = (
                "no server given: set --host (in tshark -o extcap.usbip_remote.host:NAME) to its name or address "
                "(demo is a simulated device)"
            )
        if not wrong and choices.mode == RELAY:
            wrong = _unfit(choices)
        capture_filter = queries.refusal(value_of(self._argv, "--extcap-capture-filter") or "")
        if not wrong and capture_filter:
            wrong = f"the capture filter cannot be understood: {capture_filter}"
        return wrong, choices

    def _session(self, choices: Choices) -> ProbeGroup:
        server = Server.parse(choices.host.strip(), choices.port)
        settings = ProbeSettings(choices.descriptors, choices.listen_in, choices.reconnect)
        devices = choices.devices or choices.device
        log.info("capturing %s %s, %s", server, devices, settings)
        self._duration = choices.duration
        events = CaptureEvents(server, self._toolbar.state, lambda: self._messages.put(_STARTED))
        return ProbeGroup(server, devices, settings, events)

    def _on_end(self, reason: str) -> None:
        log.info("the capture's output ended: %s", reason)
        if reason == OVER:
            self._sentence = "the relay has ended: what was captured until then is kept"
        self._messages.put(_ENDED if reason == OVER else _STOP)


def _unfit(choices: Choices) -> str:
    """What is chosen and cannot be in mode relay."""
    if choices.syslog != OFF:
        return "the device's log is not captured in mode relay: switch --syslog off, or capture it in a second window"
    return ""


def _is_file(path: str) -> bool:
    """Whether it is, or would be, a regular file."""
    if path == "-" or path.startswith("\\\\.\\pipe\\"):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True


def _conflict(choices: Choices, host: str) -> str:
    if choices.host.strip() == host:
        return ""
    return f"this interface is for the server {host}: use {INTERFACE} for {choices.host.strip()}"


def _shorter(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return first if second is None else second
    return min(first, second)
