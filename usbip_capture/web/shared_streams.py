"""Captures that are streamed: those who want the same see the same one, which is packed once.

Beginning one costs a thread, and the locks of all sessions. So one that was left is kept for LINGER seconds: whoever
joins again and again, or after somebody else, has it at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
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
#: Seconds that a capture goes on when nobody sees it any more; the latest one only.
LINGER = 1.0


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
        lost, self._lost = self._lost, self.writer.dropped if self._has_begun else 0
        with self._lock:
            outlets = [outlet for outlet, begun in self._outlets.items() if begun]
        self.written += sum(map(len, buffers))
        if not outlets:
            return
        raw = b"".join(buffers)
        for outlet in outlets:
            if self._shows_kept:
                outlet.wait_for_room(lambda: self._aborted)
            outlet.put(raw, self._lost - lost)

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
    """All that a server streams, until `close`. Threads may share it. dropped: packets that viewers lack who have left.

    clock: in seconds.
    """

    def __init__(self, server: LocalServer, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._lock = threading.Lock()
        self._of: dict[Outlet, _Stream] = {}
        self._shared: dict[Streamed, _Stream] = {}
        self._unseen: _Unseen | None = None
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Packets that viewers lack, so far."""
        with self._lock:
            return self._dropped + sum(outlet.dropped for outlet in self._of)

    @property
    def running(self) -> int:
        """Captures that are packed and seen now: as many as there are different ones."""
        with self._lock:
            return len(set(self._of.values()))

    def join_known(self, sessions: Sessions, wanted: Streamed, outlet: Outlet) -> bool:
        """Have it seen in `outlet` from now on, if the same is captured already. Never waits."""
        wanted = _wanted(sessions, wanted)
        with self._lock:
            return self._joined(wanted, outlet)

    def join(self, sessions: Sessions, wanted: Streamed, outlet: Outlet) -> None:
        """Have it seen in `outlet` from now on. May take its time. Raises CaptureError."""
        wanted = _wanted(sessions, wanted)
        with self._lock:
            if outlet.left or self._joined(wanted, outlet):
                return
            made = self._of[outlet] = _Stream(self._server, sessions, wanted, outlet)
            if not wanted.hindsight:  # what was kept is for one who joins now
                self._shared[wanted] = made
        made.open()

    def _joined(self, wanted: Streamed, outlet: Outlet) -> bool:
        """The lock is held."""
        known = self._shared.get(wanted)
        if known is None or not known.add(outlet):
            return False
        self._of[outlet] = known
        if self._unseen is not None and self._unseen.stream is known:
            self._unseen = None
        return True

    def leave(self, outlet: Outlet) -> Callable[[], None] | None:
        """It sees nothing more. What ends a capture that nobody sees, and may take its time; None if there is none."""
        outlet.leave()
        with self._lock:
            stream = self._of.pop(outlet, None)
            if stream is None:
                return None
            self._dropped += outlet.dropped
            if not stream.remove(outlet):
                return None
            ended: _Stream | None = stream
            if stream in self._shared.values() and not self._closed:
                ended = None if self._unseen is None else self._unseen.stream
                self._unseen = _Unseen(stream, self._clock())
            return self._ended(ended)

    def unseen(self) -> Callable[[], None] | None:
        """The same for what nobody has seen for LINGER seconds."""
        with self._lock:
            unseen = self._unseen
            if unseen is None or (self._clock() - unseen.since < LINGER and not self._closed):
                return None
            self._unseen = None
            return self._ended(unseen.stream)

    def close(self) -> None:
        """What is left ends at once, and what nobody sees. May take its time."""
        self._closed = True
        if end := self.unseen():
            end()

    def _ended(self, stream: _Stream | None) -> Callable[[], None] | None:
        """Nobody joins it any more. The lock is held."""
        for wanted in [wanted for wanted, one in self._shared.items() if one is stream]:
            del self._shared[wanted]
        return None if stream is None else stream.end


class _Unseen(NamedTuple):
    """since: when the last one left, in seconds."""

    stream: _Stream
    since: float


def _wanted(sessions: Sessions, wanted: Streamed) -> Streamed:
    return wanted if sessions.keeps is not None else wanted._replace(hindsight=False)
