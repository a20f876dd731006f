"""The URBs of a device of just now, kept in memory: a capture that begins after a failure has what led to it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.span import Span
from usbip_capture.usb.urb import Buffer, Completion, Urb

#: Bytes that a URB takes beside its data, and those of each isochronous packet.
URB_COST, PACKET_COST = 832, 160
#: So few URBs are shown at once, before what is newer is seen.
FEW = 64
#: Events between two looks whether the output keeps up, and seconds for it to do so.
_PACE, _PATIENCE = 256, 1.0


class RecentUrb(NamedTuple):
    """number, back: the place of its submission and of its completion in all that happened. data: outward.

    back, completed_ns: 0 and completion None as long as it is in flight.
    """

    number: int
    submitted_ns: int
    urb: Urb
    data: Buffer
    back: int = 0
    completed_ns: int = 0
    completion: Completion | None = None


class RecentUrbs:
    """Those of one device, as `span` has it; not for several threads at once.

    position: how many came back so far. A key is the caller's, and of one URB only as long as that is in flight.
    held: so many are just being shown what is kept, and nothing is forgotten meanwhile.
    """

    def __init__(self, span: Span) -> None:
        self.position = 0
        self.held = 0
        self._span = span
        self._keys = 0
        self._seconds_ns = round(span.seconds * 1e9)
        self._number = 0
        self._bytes = 0
        self._flying: dict[int, RecentUrb] = {}
        self._back: deque[tuple[int, RecentUrb]] = deque()

    def submitted(self, key: int, urb: Urb, data: Buffer | None = None, timestamp_ns: int = 0) -> None:
        """A URB is submitted. data: outward, if the URB does not have it itself; timestamp_ns: now, if not given."""
        given = urb.data if data is None else data
        kept = given if type(given) is bytes else bytes(given)  # its owner may change it, or it is a part of much more
        if urb.data is not kept and urb.data:
            urb = Urb(urb.transfer_type, urb.endpoint, urb.length, b"", urb.setup, urb.flags, urb.interval,
                      urb.start_frame, urb.packets)  # fmt: skip
        self._number += 1
        self._flying[key] = RecentUrb(self._number, timestamp_ns or time.time_ns(), urb, kept)

    def completed(self, key: int, completion: Completion, timestamp_ns: int = 0) -> None:
        """It came back."""
        found = self._flying.pop(key, None)
        if found is None:
            return
        if type(completion.data) is not bytes:
            completion = Completion(completion.status, completion.actual_length, bytes(completion.data),
                                    completion.start_frame, completion.error_count, completion.packets)  # fmt: skip
        cost = URB_COST + len(found.data) + len(completion.data)
        cost += PACKET_COST * (len(found.urb.packets) + len(completion.packets))
        now_ns = timestamp_ns or time.time_ns()
        self._number += 1
        self._back.append((cost, found._replace(back=self._number, completed_ns=now_ns, completion=completion)))
        self._bytes += cost
        self.position += 1
        self._forget(now_ns)

    def unanswered(self, key: int) -> None:
        """It will not come back."""
        self._flying.pop(key, None)

    def new_keys(self) -> int:
        """Keys from this one on are those of no other session."""
        self._keys += 1 << 40
        return self._keys

    def since(self, position: int, until: int | None = None) -> list[RecentUrb]:
        """Those that came back from `position` on, up to `until`, as far as they are still there."""
        self._forget(time.time_ns())
        first = self.position - len(self._back)
        last = self.position if until is None else until
        start = max(position - first, 0)
        return [recent for _, recent in islice(self._back, start, max(last - first, start))]

    @property
    def flying(self) -> dict[int, RecentUrb]:
        """Those in flight, by key."""
        return self._flying

    def _forget(self, now_ns: int) -> None:
        """What is too much, or too old."""
        back, oldest_ns = self._back, now_ns - self._seconds_ns if self._seconds_ns else 0
        while not self.held and back and (self._bytes > self._span.max_bytes or back[0][1].completed_ns < oldest_ns):
            self._bytes -= back.popleft()[0]


class Replay:
    """Shows `channel` what was kept, each event once and in its order.

    flush: of its writer: the output is waited for, but not for long. ids: of URBs that were shown and are in flight, by
    their number. position: up to which it has seen `RecentUrbs`. by: who kept it.
    """

    def __init__(self, channel: UsbChannel, flush: Callable[[float], bool], by: str) -> None:
        self.ids: dict[int, int] = {}
        self.position = 0
        self._channel = channel
        self._flush = flush
        self._by = by
        self._keeps_up = True
        self._begun = False

    def describe(self, requests: Iterable[tuple[Urb, Completion]], label: str, at_ns: int) -> None:
        """What was learnt of the device before, at this time, each with `label`."""
        self._channel.label = label
        for urb, completion in requests:
            self._channel.completed(self._channel.submitted(urb, None, at_ns), urb, completion, at_ns)
        self._channel.label = None

    def show(self, recents: Sequence[RecentUrb], *, may_wait: bool) -> None:
        """What has come back since, and what is in flight. may_wait: this thread may wait for the output."""
        events = [(recent.number, recent) for recent in recents if recent.number not in self.ids]
        events += [(recent.back, recent) for recent in recents if recent.back]
        events.sort(key=itemgetter(0))
        if events and not self._begun:
            self._begun = True
            self._channel.comment(f"usbip-capture: kept by the {self._by}: what happened before this capture began")
        for count, (place, recent) in enumerate(events, 1):
            if place == recent.number:
                self.ids[place] = self._channel.submitted(recent.urb, recent.data, recent.submitted_ns)
            elif recent.completion is not None:
                urb_id = self.ids.pop(recent.number)
                self._channel.completed(urb_id, recent.urb, recent.completion, recent.completed_ns)
            if may_wait and self._keeps_up and not count % _PACE:
                self._keeps_up = self._flush(_PATIENCE)

    def end(self) -> None:
        """What comes from now on happens now."""
        if self._begun:
            self._channel.comment("usbip-capture: this capture began here")


def oldest_ns(recents: Iterable[RecentUrb]) -> int:
    """When the first of them was submitted; 0 if there are none."""
    return min((recent.submitted_ns for recent in recents), default=0)
