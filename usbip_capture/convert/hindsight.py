"""Events a little later, when it is known what became of them.

A CMD_UNLINK can cross the RET_SUBMIT of its URB. In the recording it then comes after it; but the client's kernel had
unlinked the URB already when the reply arrived, and its status is that of an unlinked one. So completions are held
for a moment, and changed when the CMD_UNLINK is seen.

Ref: Linux drivers/usb/core/hcd.c, usb_hcd_giveback_urb; drivers/usb/usbip/vhci_hcd.c, vhci_urb_dequeue
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.convert.sessions import Session
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion
from usbip_capture.wire.observed import Completed, Event, Unlink

#: How long a CMD_UNLINK may be on its way while the reply is, in nanoseconds of the recording.
WINDOW_NS = 200_000_000
#: Events that wait at most, and portions of the recording that they may hold in memory.
_MAX_EVENTS = 65_536
_MAX_PORTIONS = 32

Item: TypeAlias = "tuple[Session, Event]"


class Hindsight:
    """Holds events back for WINDOW_NS and hands them on to `write` in the order in which they came."""

    def __init__(self, write: Callable[[Session, Event], None]) -> None:
        self._write = write
        self._items: deque[Item] = deque()
        self._portions: deque[int] = deque([0])  # how many events came with each; the last one still grows

    def add(self, session: Session, events: list[Event]) -> None:
        """The next events of a session."""
        items = self._items
        for event in events:
            if type(event) is Unlink:
                self._unlink(session, event)
            items.append((session, event))
        self._portions[-1] += len(events)

    def portion(self, now_ns: int) -> None:
        """A portion of the recording begins, at `now_ns`: hand on what is old enough."""
        items, portions, before_ns = self._items, self._portions, now_ns - WINDOW_NS
        while portions and (
            len(portions) > _MAX_PORTIONS
            or len(items) > _MAX_EVENTS
            or not portions[0]
            or items[portions[0] - 1][1].timestamp_ns <= before_ns
        ):
            self._release(portions.popleft())
        portions.append(0)

    def flush(self) -> None:
        """Hand on everything."""
        self._release(len(self._items))
        self._portions = deque([0])

    def _release(self, count: int) -> None:
        take, write = self._items.popleft, self._write
        for _ in range(count):
            write(*take())

    def _unlink(self, session: Session, unlink: Unlink) -> None:
        for index in range(len(self._items) - 1, -1, -1):
            owner, event = self._items[index]
            if unlink.timestamp_ns - event.timestamp_ns > WINDOW_NS:
                return
            if owner is session and type(event) is Completed and event.seqnum == unlink.target:
                if not event.unlink:
                    done = event.completion
                    changed = Completion(
                        -ECONNRESET, done.actual_length, done.data, done.start_frame, done.error_count, done.packets
                    )
                    self._items[index] = (owner, event._replace(completion=changed, unlink=unlink.seqnum))
                return
