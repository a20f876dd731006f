"""Events a moment later, when it is known what became of them.

A CMD_UNLINK can cross the RET_SUBMIT of its URB: it is then seen after that, but the client's kernel had unlinked the
URB already, and reports it as an unlinked one. So events are held for a moment, and a completion is changed when its
CMD_UNLINK comes. It is found by its seqnum: the work for each event does not depend on how many are held.

Ref: Linux drivers/usb/core/hcd.c, usb_hcd_giveback_urb; drivers/usb/usbip/vhci_hcd.c, vhci_urb_dequeue
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion
from usbip_capture.wire.observed import Completed, Event, Submitted, Unlink

Owner = TypeVar("Owner")

#: Bytes that an isochronous packet takes in memory.
_PACKET_COST = 100


class Hindsight(Generic[Owner]):
    """Holds events for `window_ns`, then hands them on to `write` in the order in which they came.

    Owners are connections: a seqnum is unique only together with one. At most `max_events` and `max_bytes` of their
    data are held: what is more lets the oldest go early.
    items: what is held, with the bytes of each.
    """

    def __init__(
        self, write: Callable[[Owner, Event], None], window_ns: int, *, max_events: int, max_bytes: int
    ) -> None:
        self._write = write
        self._window_ns = window_ns
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.items: deque[tuple[Owner, Event, int]] = deque()
        self._bytes = 0
        # Events are numbered as they come. Only a CMD_UNLINK has those before it indexed, each once.
        self._first = self._indexed = 0
        self._completed: dict[tuple[Owner, int], tuple[int, Completed]] = {}
        self._changed: dict[int, Completed] = {}

    def add(self, owner: Owner, events: list[Event]) -> None:
        """The next events of a connection."""
        items = self.items
        for event in events:
            size = 0
            if type(event) is Completed:
                completion = event.completion
                size = len(completion.data)
                if completion.packets:
                    size += len(completion.packets) * _PACKET_COST
            elif type(event) is Submitted:
                size = len(event.data)
            elif type(event) is Unlink:
                self._unlinked(owner, event)
            self._bytes += size
            items.append((owner, event, size))
        if self._bytes > self._max_bytes or len(items) > self._max_events:
            self._release(items[-1][1].timestamp_ns)

    def release(self, now_ns: int) -> None:
        """Hand on what is old enough."""
        if self.items and self.items[0][1].timestamp_ns <= now_ns - self._window_ns:
            self._release(now_ns)

    def flush(self) -> None:
        """Hand on everything."""
        while self.items:
            self._pop()

    def _release(self, now_ns: int) -> None:
        items, before_ns = self.items, now_ns - self._window_ns
        while items and (
            items[0][1].timestamp_ns <= before_ns or self._bytes > self._max_bytes or len(items) > self._max_events
        ):
            self._pop()

    def _pop(self) -> None:
        owner, event, size = self.items.popleft()
        self._bytes -= size
        number, self._first = self._first, self._first + 1
        if self._completed and type(event) is Completed:
            key = owner, event.seqnum
            found = self._completed.get(key)
            if found is not None and found[0] == number:
                del self._completed[key]
            event = self._changed.pop(number, event)
        self._write(owner, event)

    def _unlinked(self, owner: Owner, unlink: Unlink) -> None:
        self._index()
        found = self._completed.get((owner, unlink.target))
        if found is None:
            return
        number, event = found
        if event.unlink or number in self._changed or unlink.timestamp_ns - event.timestamp_ns > self._window_ns:
            return
        done = event.completion
        changed = Completion(
            -ECONNRESET, done.actual_length, done.data, done.start_frame, done.error_count, done.packets
        )
        self._changed[number] = event._replace(completion=changed, unlink=unlink.seqnum)

    def _index(self) -> None:
        """Take up what has come since the last time: the newest completion of each URB counts."""
        end = self._first + len(self.items)
        begin = max(self._indexed, self._first)
        fresh = list(islice(reversed(self.items), end - begin))
        for number, (owner, event, _) in zip(range(begin, end), reversed(fresh), strict=True):
            if type(event) is Completed:
                self._completed[owner, event.seqnum] = number, event
        self._indexed = end
