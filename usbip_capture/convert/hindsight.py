"""Events a little later, when it is known what became of them, see `wire.hindsight`: by portions of the recording.

Events refer to the portion that they came with: what they keep in memory is counted by portions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from usbip_capture.convert.sessions import Session
from usbip_capture.wire.hindsight import Held, Owner
from usbip_capture.wire.observed import Event, Unlink

#: How long a CMD_UNLINK may be on its way while the reply is, in nanoseconds of the recording.
WINDOW_NS = 200_000_000
#: Events that wait at most, and portions of the recording that they may keep in memory, also in bytes.
_MAX_EVENTS = 65_536
_MAX_PORTIONS = 32
_MAX_BYTES = 32 << 20


class Hindsight(Held):
    """Holds events back for WINDOW_NS and hands them on to `write` in the order in which they came."""

    def __init__(self, write: Callable[[Session, Event], None]) -> None:
        super().__init__(write, WINDOW_NS)
        self._portions: deque[int] = deque([0])  # how many events came with each; the last one still grows
        self._sizes: deque[int] = deque([0])  # bytes of each portion
        self._bytes = 0

    def add(self, session: Owner, events: list[Event]) -> None:
        """The next events of a session."""
        items = self.items
        for event in events:
            if type(event) is Unlink:
                self.unlinked(session, event)
            items.append((session, event))
        self._portions[-1] += len(events)
        if len(items) > _MAX_EVENTS:
            self._shorten(_MAX_EVENTS // 2)

    def portion(self, now_ns: int, size: int) -> None:
        """A portion of the recording of `size` bytes begins, at `now_ns`: hand on what is old enough."""
        items, portions, before_ns = self.items, self._portions, now_ns - WINDOW_NS
        while portions and (
            len(portions) > _MAX_PORTIONS
            or self._bytes > _MAX_BYTES
            or not portions[0]
            or items[portions[0] - 1][1].timestamp_ns <= before_ns
        ):
            self._bytes -= self._sizes.popleft()
            self.hand_on(portions.popleft())
        portions.append(0)
        self._sizes.append(size)
        self._bytes += size

    def flush(self) -> None:
        """Hand on everything."""
        self.hand_on(len(self.items))
        self._portions, self._sizes, self._bytes = deque([0]), deque([0]), 0

    def _shorten(self, count: int) -> None:
        """Hand on the oldest so many events."""
        self.hand_on(count)
        portions = self._portions
        for index, size in enumerate(portions):
            taken = min(size, count)
            portions[index] -= taken
            count -= taken
