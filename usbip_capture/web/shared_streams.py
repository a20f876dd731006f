"""Captures that are streamed: those who want the same see the same one, which is packed once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from usbip_capture.capture.shared_writer import SharedWriter
from usbip_capture.capture.sinks import Sink
from usbip_capture.errors import CaptureError
from usbip_capture.sessions.event_capture import EventCapture
from usbip_capture.sessions.session_capture import DESCRIPTORS, DeviceChoice, SessionCapture
from usbip_capture.sessions.sessions import Sessions
from usbip_capture.usb.urb import Buffer
from usbip_capture.web.outlet import Outlet

if TYPE_CHECKING:
    from usbip_capture.serving.local_server import LocalServer

log = logging.getLogger(__name__)

#: Bytes of what a capture has not packed yet.
_QUEUE_BYTES = 16 << 20


class Streamed(NamedTuple):
    """What is captured. devices: patterns, none for all. snaplen: bytes of each packet, 0 for all.

    unlinks: whether these are recorded, too. events: and what happens at the server. hindsight: with what was kept of
    the devices before.
    """

    devices: tuple[str, ...] = ()
    filter: str = ""
    snaplen: int = 0
    unlinks: bool = False
    events: bool = False
    hindsight: bool = False


class _Stream(Sink):
    """One capture, and who sees it."""

    def __init__(self, server: LocalServer, sessions: Sessions, wanted: Streamed, first: Outlet) -> None:
        super().__init__("the viewers of the dashboard")
        self._sessions = sessions
        self._lock = threading.Lock()
        self._outlets: dict[Outlet, bool] = {first: True}  # whether it has what it begins with
        self._shows_kept, self._has_begun, self._over = wanted.hindsight, False, False
        self._lost = 0  # packets that the capture itself lacks
        self.writer = SharedWriter(
            self,
            snaplen=wanted.snaplen,
            queue_bytes=_QUEUE_BYTES,
            capture_filter=wanted.filter,
            record_unlinks=wanted.unlinks,
        )
        choice = DeviceChoice(wanted.devices)
        self._capture = SessionCapture(self.writer, choice, server.address, hindsight=wanted.hindsight)
        self._events = EventCapture(server.events, self.writer, server.address, choice) if wanted.events else None

    @property
    def viewers(self) -> list[Outlet]:
        """Who sees it."""
        with self._lock:
            return list(self._outlets)

    def open(self) -> None:
        """Have it see what is done with devices. May take its time, where it is shown what was kept."""
        self._has_begun = True
        try:
            self._sessions.join(self._capture)
        finally:
            self._shows_kept = False
        if self._over:  # meanwhile
            self._sessions.leave(self._capture)

    def add(self, outlet: Outlet) -> bool:
        """One more, who sees what comes from now on; False if it has ended."""
        with self._lock:
            self._outlets[outlet] = False
        if self.writer.show_so_far(DESCRIPTORS, lambda blocks: self._begin(outlet, blocks)):
            return True
        self.remove(outlet)
        return False

    def remove(self, outlet: Outlet) -> bool:
        """It sees no more; whether nobody does."""
        with self._lock:
            self._outlets.pop(outlet, None)
            return not self._outlets

    def end(self) -> None:
        """Capture no more."""
        self._over = True
        self._sessions.leave(self._capture)
        if self._events is not None:
            self._events.close()
        with suppress(CaptureError):  # nobody sees it any more
            self.writer.close()

    def write(self, buffers: Sequence[Buffer]) -> None:
        raw = b"".join(buffers)
        lost, self._lost = self._lost, self.writer.dropped if self._has_begun else 0
        with self._lock:
            outlets = [outlet for outlet, begun in self._outlets.items() if begun]
        for outlet in outlets:
            if self._shows_kept:
                outlet.wait_for_room(lambda: self._aborted)
            outlet.put(raw, self._lost - lost)
        self.written += len(raw)

    def close(self) -> None:
        for outlet in self.viewers:
            outlet.end()

    def _begin(self, outlet: Outlet, blocks: bytes) -> None:
        with self._lock:
            if outlet not in self._outlets:
                return
            self._outlets[outlet] = True
        outlet.begin(blocks)


class SharedStreams:
    """All that a server streams. Threads may share it. dropped: packets that viewers lack who have left."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._of: dict[Outlet, _Stream] = {}
        self._shared: dict[Streamed, _Stream] = {}
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Packets that viewers lack, so far."""
        with self._lock:
            return self._dropped + sum(outlet.dropped for outlet in self._of)

    @property
    def running(self) -> int:
        """Captures that are packed now: as many as there are different ones."""
        with self._lock:
            return len(set(self._of.values()))

    def join(self, sessions: Sessions, wanted: Streamed, outlet: Outlet) -> None:
        """Have it seen in `outlet` from now on. May take its time. Raises CaptureError."""
        if sessions.keeps is None:
            wanted = wanted._replace(hindsight=False)
        with self._lock:
            if outlet.left:
                return
            known = self._shared.get(wanted)
            if known is not None and known.add(outlet):
                self._of[outlet] = known
                return
            made = self._of[outlet] = _Stream(self._server, sessions, wanted, outlet)
            if not wanted.hindsight:  # what was kept is for one who joins now
                self._shared[wanted] = made
        made.open()

    def leave(self, outlet: Outlet) -> None:
        """It sees nothing more; what nobody sees any more ends."""
        outlet.leave()
        with self._lock:
            stream = self._of.pop(outlet, None)
            if stream is None:
                return
            self._dropped += outlet.dropped
            if not stream.remove(outlet):
                return
            for wanted in [wanted for wanted, one in self._shared.items() if one is stream]:
                del self._shared[wanted]
        stream.end()
