"""Events a moment later, when it is known what became of them.

A CMD_UNLINK can cross the RET_SUBMIT of its URB: the relay then sees it after that, but the client's kernel had
unlinked the URB already, and gives it back as an unlinked one. So events are held for a moment, and a completion is
changed when the CMD_UNLINK comes.

Ref: Linux drivers/usb/core/hcd.c, usb_hcd_giveback_urb; drivers/usb/usbip/vhci_hcd.c, vhci_urb_dequeue
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion
from usbip_capture.wire.observed import Completed, Event, Unlink

if TYPE_CHECKING:
    from usbip_capture.relay.observation import Observation

#: How long a CMD_UNLINK may be on its way from a client to the relay, in nanoseconds.
WINDOW_NS = 100_000_000
#: Events that wait at most, and bytes in them: a queue that is longer hands on its oldest.
_MAX_EVENTS = 4096
_MAX_BYTES = 1 << 20


class Hindsight:
    """Holds the events of all connections for WINDOW_NS, then hands them on to `write` in the order they came.

    items: what is held, with the bytes of each.
    """

    def __init__(self, write: Callable[[Observation, Event], None]) -> None:
        self._write = write
        self.items: deque[tuple[Observation, Event, int]] = deque()
        self._bytes = 0

    def add(self, observation: Observation, events: list[Event]) -> None:
        """The next events of a connection."""
        items = self.items
        for event in events:
            size = 0
            if type(event) is Completed:
                size = len(event.completion.data)
            elif type(event) is Unlink:
                self._unlinked(observation, event)
            self._bytes += size
            items.append((observation, event, size))
        if self._bytes > _MAX_BYTES or len(items) > _MAX_EVENTS:
            self._release(items[-1][1].timestamp_ns)

    def release(self, now_ns: int) -> None:
        """Hand on what is old enough."""
        if self.items and self.items[0][1].timestamp_ns <= now_ns - WINDOW_NS:
            self._release(now_ns)

    def flush(self) -> None:
        """Hand on everything."""
        while self.items:
            self._pop()

    def _release(self, now_ns: int) -> None:
        items, before_ns = self.items, now_ns - WINDOW_NS
        while items and (items[0][1].timestamp_ns <= before_ns or self._bytes > _MAX_BYTES or len(items) > _MAX_EVENTS):
            self._pop()

    def _pop(self) -> None:
        observation, event, size = self.items.popleft()
        self._bytes -= size
        self._write(observation, event)

    def _unlinked(self, observation: Observation, unlink: Unlink) -> None:
        for index in range(len(self.items) - 1, -1, -1):
            owner, event, size = self.items[index]
            if type(event) is Completed and owner is observation and event.seqnum == unlink.target:
                if not event.unlink:
                    done = event.completion
                    changed = Completion(
                        -ECONNRESET, done.actual_length, done.data, done.start_frame, done.error_count, done.packets
                    )
                    self.items[index] = owner, event._replace(completion=changed, unlink=unlink.seqnum), size
                return
