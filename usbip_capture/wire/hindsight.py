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
from typing import Any, TypeAlias

from usbip_capture.system.compiling import mypyc_attr
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion
from usbip_capture.wire.observed import Completed, Event, Submitted, Unlink

#: A connection: the caller's own kind of object. No type variable, see CONTRIBUTING.md, "The compiled build".
Owner: TypeAlias = Any

#: Bytes that an isochronous packet takes in memory.
_PACKET_COST = 100


@mypyc_attr(allow_interpreted_subclasses=True)
class Held:
    """Events in the order in which they came, the completions among them found by seqnum when a CMD_UNLINK comes.

    Owners are connections: a seqnum is unique only together with one. A completion is changed if its CMD_UNLINK comes
    at most `window_ns` later. items: what is held; who adds an Unlink calls `unlinked` before.
    """

    def __init__(self, write: Callable[[Owner, Event], None], window_ns: int) -> None:
        self._write = write
        self._window_ns = window_ns
        self.items: deque[tuple[Owner, Event]] = deque()
        # Events are numbered as they come. Only a CMD_UNLINK has those before it indexed, each once.
        self._first = self._indexed = 0
        self._completed: dict[tuple[Owner, int], tuple[int, Completed]] = {}
        self._changed: dict[int, Completed] = {}

    def hand_on(self, count: int) -> None:
        """Hand on the oldest so many events to `write`, in their order."""
        take, write, completed = self.items.popleft, self._write, self._completed
        first = self._first
        self._first += count
        if not completed:
            for _ in range(count):
                write(*take())
            return
        for number in range(first, first + count):
            owner, event = take()
            if type(event) is Completed:
                key = owner, event.seqnum
                if key in completed and completed[key][0] == number:
                    del completed[key]
                event = self._changed.pop(number, event)
            write(owner, event)

    def unlinked(self, owner: Owner, unlink: Unlink) -> None:
        """This CMD_UNLINK comes next: its URB's completion, if that is held, is one of an unlinked URB."""
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
        for number, (owner, event) in zip(range(begin, end), reversed(fresh), strict=True):
            if type(event) is Completed:
                self._completed[owner, event.seqnum] = number, event
        self._indexed = end


class Hindsight(Held):
    """Holds events for `window_ns`, then hands them on to `write` in the order in which they came.

    At most `max_events` and `max_bytes` of their data are held: what is more lets the oldest go early.
    """

    def __init__(
        self, write: Callable[[Owner, Event], None], window_ns: int, *, max_events: int, max_bytes: int
    ) -> None:
        super().__init__(write, window_ns)
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._sizes: deque[int] = deque()  # bytes of each event
        self._bytes = 0

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
                self.unlinked(owner, event)
            self._bytes += size
            self._sizes.append(size)
            items.append((owner, event))
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
        write, sizes, most = self._write, self._sizes, self._max_events
        while items and (items[0][1].timestamp_ns <= before_ns or self._bytes > self._max_bytes or len(items) > most):
            if self._completed:
                self._pop()
            else:  # nearly always: two calls less
                self._bytes -= sizes.popleft()
                self._first += 1
                write(*items.popleft())

    def _pop(self) -> None:
        self._bytes -= self._sizes.popleft()
        self.hand_on(1)
