"""A capture of what others do at a server of ours, into a sink; it goes on when the server was lost and is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlencode

from usbip_capture import __version__
from usbip_capture.capture.sinks import ReaderGone, Sink
from usbip_capture.errors import CaptureError, ServerLost, UsbipError
from usbip_capture.server_stream.clock import ServerClock
from usbip_capture.server_stream.own_log import OwnLog
from usbip_capture.server_stream.requests import DashboardConnection
from usbip_capture.server_stream.sections import JoinedSections
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.system.shown import one_line
from usbip_capture.usb.urb import Buffer

log = logging.getLogger(__name__)

#: Why a capture ended: the server did, and it was not to be waited for.
OVER = "over"
#: Seconds between two attempts to join a server that was lost, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0
#: Seconds for what is on its way to the sink at the end.
_END_TIMEOUT = 2.0
_OURS = "usbip-capture: "
#: What comes, in portions.
Parts: TypeAlias = Iterator[bytes]


@dataclass(slots=True, frozen=True)
class Wanted:
    """What of a server is captured, as its interface takes it, with its events. devices: patterns, none means all.

    snaplen: bytes of each packet. capture_filter: applied by the server. record_unlinks: CMD_UNLINK, too.
    """

    devices: Sequence[str] = ()
    capture_filter: str = ""
    snaplen: int = 0
    record_unlinks: bool = False

    def path(self, *, again: bool = False) -> str:
        """Of the request. again: without what the server has kept, which was captured already."""
        query = [("device", device) for device in self.devices]
        query += [("filter", self.capture_filter)] if self.capture_filter else []
        query += [("snaplen", str(self.snaplen))] if self.snaplen else []
        query += [("unlinks", "1")] if self.record_unlinks else []
        query += [("hindsight", "0")] if again else []
        return f"/captures/stream?{urlencode([*query, ('events', '1'), ('alive', '1')])}"


class _Ending(Exception):
    """The capture is to end."""


class StreamedCapture:
    """A capture of `dashboard` into what `open_sink` opens once it is joined; closed with it. As a PcapWriter is used.

    reconnect: wait for a server that was lost, and go on. on_state: gets what becomes of the connection, in words.
    on_end: called once when it ends by itself: `reader` (nobody reads it any more), `error` (see `error`), `count`
    (there are max_packets) or OVER (see `loss`).
    Raises UsbipError if the server cannot be joined; no sink is opened then.
    """

    def __init__(
        self,
        dashboard: Dashboard,
        open_sink: Callable[[], Sink],
        wanted: Wanted,
        *,
        max_packets: int = 0,
        reconnect: bool = True,
        on_state: Callable[[str], None] = lambda text: None,
        on_end: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.error: CaptureError | None = None
        self.loss: UsbipError | None = None
        self.filtered = 0  # by the server, which does not report it
        self._dashboard = dashboard
        self._wanted = wanted
        self._reconnect = reconnect
        self._on_state = on_state
        self._on_end = on_end
        self._sections = JoinedSections(f"usbip-capture {__version__}", max_packets)
        self._clock = ServerClock()
        self._writing = threading.Lock()  # held while the sink is written to, or closed
        self._over = False
        self._closing = threading.Event()
        self._done = threading.Event()
        self._opened = False
        self._logs = 0
        parts = self._join()
        try:
            self._sink = open_sink()
            self._opened = True
            threading.Thread(target=self._run, args=(parts,), name="usbip-server-stream", daemon=True).start()
        except RuntimeError as error:
            self._connection.close()
            raise CaptureError(f"the server cannot be joined: {error}: end other programs") from error
        except BaseException:
            self._connection.close()
            raise

    def comment(self, text: str) -> None:
        """Comment on this moment of the capture."""
        self._put_own(lambda: self._sections.note(text, self._clock.at(time.time_ns())))

    def add_log_interface(self, description: str) -> OwnLog:
        """An interface for a log that this machine gets: `syslog0` and so on. Its times are those of the server."""
        name = f"syslog{self._logs}"
        self._logs += 1
        interface = self._sections.log_interface(name, f"{description}; by the server's clock, aligned")
        return OwnLog(
            lambda messages: self._put_own(lambda: self._sections.log(interface, messages)),
            self.comment,
            self._clock.at,
        )

    def close(self, timeout: float | None = None, at_most: float | None = None) -> None:
        """Complete it, in bounded time. Raises CaptureError if the output has failed."""
        self._closing.set()
        if not self._done.wait(_END_TIMEOUT if at_most is None else at_most + (timeout or 0)):
            self._sink.abort()
            self._close_sink(_END_TIMEOUT)
        if self.error is not None:
            raise self.error

    @property
    def urbs(self) -> int:
        """URBs that came back and were captured."""
        return self._sections.urbs

    @property
    def bytes(self) -> int:
        """Bytes that these URBs moved."""
        return self._sections.bytes

    @property
    def received(self) -> int:
        """Packets that came, and those of which the server reported that they found no room."""
        return self._sections.packets + self._sections.dropped

    @property
    def dropped(self) -> int:
        """Packets that found no room at the server, as far as it has reported that."""
        return self._sections.dropped

    @property
    def written(self) -> int:
        """Packets in the output."""
        return self._sections.packets

    # -- its thread

    def _join(self) -> Parts:
        """What comes from now on. Raises UsbipError."""
        connection = self._connection = DashboardConnection(self._dashboard, self._check)
        try:
            parts = connection.stream(self._wanted.path(again=self._opened))
        except BaseException:
            connection.close()
            raise
        self._sections.begin()
        self._saw(connection.server_ns)
        return parts

    def _saw(self, server_ns: int) -> None:
        """What the server has made then has come."""
        if server_ns:
            self._clock.saw(server_ns, time.time_ns())

    def _check(self) -> None:
        if self._closing.is_set():
            raise _Ending
        if self._opened and self._sink.reader_gone():
            raise ReaderGone(f"the reader of {self._sink.name} is gone")

    def _run(self, parts: Parts) -> None:
        reason = OVER
        try:
            reason = self._captured(parts)
        except _Ending:
            pass
        except ReaderGone:
            reason = "reader"
        except CaptureError as error:
            reason, self.error = "error", None if self._closing.is_set() else error
        except UsbipError as error:
            self.loss = error
        except Exception as error:  # nobody else would end the capture
            log.exception("what comes from the server cannot be captured")
            self.loss = ServerLost(f"internal error: what {self._dashboard} sends cannot be captured: {error!r}")
        self._connection.close()
        self._close_sink(None)
        self._done.set()
        if not self._closing.is_set():
            self._on_end(reason)

    def _captured(self, parts: Parts) -> str:
        """Capture until there are enough packets, or the server has ended and is not waited for; why it ends."""
        while True:
            self._on_state(f"joined to {self._dashboard}")
            lost = self._copied(parts)
            if lost is None:
                return "count"
            self._connection.close()
            if not self._reconnect:
                self.loss = lost
                return OVER
            began = time.monotonic()
            log.warning("%s: it is waited for", lost)
            self._on_state(f"waiting for {self._dashboard}")
            self.comment(f"{_OURS}{one_line(str(lost))}: it is waited for; what passes meanwhile is not captured")
            parts = self._rejoined()
            gap = f"{self._dashboard} is joined again after {time.monotonic() - began:.1f} s"
            log.info("%s", gap)
            self.comment(f"{_OURS}{gap}")

    def _copied(self, parts: Parts) -> UsbipError | None:
        """Why the server was lost; None if there are enough packets. Raises CaptureError, _Ending."""
        try:
            for part in parts:
                with self._writing:
                    blocks = self._sections.feed(part)
                    self._saw(self._sections.last_ns)
                    self._put(blocks)
                if self._sections.full:
                    return None
                self._check()
        except CaptureError:
            raise
        except UsbipError as error:
            return error
        return ServerLost(f"{self._dashboard} has ended the capture")

    def _rejoined(self) -> Parts:
        pause, reported = _FIRST_PAUSE, ""
        while True:
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                return self._join()
            except CaptureError:
                raise
            except UsbipError as error:
                if str(error) != reported:
                    reported = str(error)
                    log.warning("%s", reported)
                    self.comment(f"{_OURS}{one_line(reported)}")

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            self._closing.wait(min(left, 0.1))
        self._check()

    def _put_own(self, blocks: Callable[[], Buffer]) -> None:
        """Write what was made here, after how our clock was aligned, where that is news."""
        with self._writing:
            if self._over or self._sections.full:
                return
            try:
                if text := self._clock.news():
                    self._put(self._sections.note(text, self._clock.at(time.time_ns())))
                self._put(blocks())
            except CaptureError:  # the thread that writes finds it, too
                pass

    def _put(self, blocks: Buffer) -> None:
        """Write; `_writing` is held. Raises CaptureError."""
        if blocks and not self._over:
            self._sink.write([blocks])

    def _close_sink(self, timeout: float | None) -> None:
        """Complete the output, once. timeout: for a thread that still writes."""
        if not self._writing.acquire(timeout=-1 if timeout is None else timeout):
            return
        try:
            if self._over:
                return
            try:
                if self.error is None:
                    self._put(self._sections.end())
            except CaptureError as error:
                self.error = None if isinstance(error, ReaderGone) else error
            self._over = True
            self._sink.close()
        except ReaderGone:
            pass
        except CaptureError as error:
            self.error = self.error or error
        finally:
            self._writing.release()
