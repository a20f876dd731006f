"""Events a little later, when it is known what became of them.

A CMD_UNLINK can cross the RET_SUBMIT of its URB. In the recording it then comes after it; but the client's kernel had
unlinked the URB already when the reply arrived, and its status is that of an unlinked one. So completions are held
for a moment, and changed when the CMD_UNLINK is seen.

Ref: Linux drivers/usb/core/hcd.c, usb_hcd_giveback_urb; drivers/usb/usbip/vhci_hcd.c, vhci_urb_dequeue
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

from usbip_capture.convert.sessions import Session
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion
from usbip_capture.wire.observed import Completed, Event, Unlink

#: How long a CMD_UNLINK may be on its way while the reply is, in nanoseconds of the recording.
WINDOW_NS = 200_000_000
#: Events that wait at most, and portions of the recording that they may keep in memory, also in bytes.
_MAX_EVENTS = 65_536
_MAX_PORTIONS = 32
_MAX_BYTES = 32 << 20

Item: TypeAlias = "tuple[Session, Event]"


class Hindsight:
    """Holds events back for WINDOW_NS and hands them on to `write` in the order in which they came."""

    def __init__(self, write: Callable[[Session, Event], None]) -> None:
        self._write = write
        self._items: deque[Item] = deque()
        self._released = 0  # so many events were handed on: the number of the first one that waits
        self._portions: deque[int] = deque([0])  # how many events came with each; the last one still grows
        self._sizes: deque[int] = deque([0])  # bytes of each portion
        self._bytes = 0
        # Filled when a CMD_UNLINK comes only: most sessions have none, and others look each event up once.
        self._completed: dict[tuple[Session, int], tuple[int, Completed]] = {}  # by seqnum; number of the event
        self._looked_up = 0  # events before this number are in `_completed`
        self._changed: dict[int, Completed] = {}  # by number

    def add(self, session: Session, events: list[Event]) -> None:
        """The next events of a session."""
        items = self._items
        for event in events:
            if type(event) is Unlink:
                self._unlink(session, event)
            items.append((session, event))
        self._portions[-1] += len(events)
        if len(items) > _MAX_EVENTS:
            self._shorten(_MAX_EVENTS // 2)

    def portion(self, now_ns: int, size: int) -> None:
        """A portion of the recording of `size` bytes begins, at `now_ns`: hand on what is old enough."""
        items, portions, before_ns = self._items, self._portions, now_ns - WINDOW_NS
        while portions and (
            len(portions) > _MAX_PORTIONS
            or self._bytes > _MAX_BYTES
            or not portions[0]
            or items[portions[0] - 1][1].timestamp_ns <= before_ns
        ):
            self._bytes -= self._sizes.popleft()
            self._release(portions.popleft())
        portions.append(0)
        self._sizes.append(size)
        self._bytes += size

    def flush(self) -> None:
        """Hand on everything."""
        self._release(len(self._items))
        self._portions, self._sizes, self._bytes = deque([0]), deque([0]), 0

    def _shorten(self, count: int) -> None:
        """Hand on the oldest so many events."""
        self._release(count)
        portions = self._portions
        for index, size in enumerate(portions):
            taken = min(size, count)
            portions[index] -= taken
            count -= taken

    def _release(self, count: int) -> None:
        take, write = self._items.popleft, self._write
        if not self._completed:
            for _ in range(count):
                write(*take())
            self._released += count
            return
        completed, changed = self._completed, self._changed
        for number in range(self._released, self._released + count):
            session, event = take()
            if type(event) is Completed:
                key = session, event.seqnum
                if key in completed and completed[key][0] == number:
                    del completed[key]
                event = changed.pop(number, event)
            write(session, event)
        self._released += count

    def _unlink(self, session: Session, unlink: Unlink) -> None:
        self._look_up()
        number, event = self._completed.get((session, unlink.target), (-1, None))
        if event is None or event.unlink or number in self._changed:
            return
        if unlink.timestamp_ns - event.timestamp_ns > WINDOW_NS:
            return
        done = event.completion
        completion = Completion(
            -ECONNRESET, done.actual_length, done.data, done.start_frame, done.error_count, done.packets
        )
        self._changed[number] = event._replace(completion=completion, unlink=unlink.seqnum)

    def _look_up(self) -> None:
        """Remember where the completions are that came since the last CMD_UNLINK."""
        end = self._released + len(self._items)
        first, self._looked_up = max(self._looked_up, self._released), end
        number = end
        for session, event in islice(reversed(self._items), end - first):
            number -= 1
            if type(event) is Completed:
                key = session, event.seqnum
                if key not in self._completed or self._completed[key][0] < number:
                    self._completed[key] = number, event
