"""Counts packets that follow each other without anything special, as nearly all do, in one loop. Pure.

What it counts is what `Statistics.add` counts; it is only faster, as one call unpacks a block's head together with the
event in it, and what URBs of an endpoint have in common is looked up once.

Ref: IETF draft-ietf-opsawg-pcapng, 4.3; https://www.tcpdump.org/linktypes/LINKTYPE_USB_LINUX_MMAPPED.html
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED
from usbip_capture.recordings.packets import END_OF_TIME, Interface, Packet
from usbip_capture.recordings.urb_events import COMPLETE, SUBMIT, endpoint_key
from usbip_capture.report.statistics import (
    CONTROL_BITS,
    TYPE_BITS,
    EndpointTotals,
    InFlight,
    InterfaceTotals,
    Pending,
    Statistics,
)
from usbip_capture.report.timeline import BYTES, TIME_MAX_NS, TIME_SUM_NS, TIMED, URBS, Timeline
from usbip_capture.usb.urb import DIR_IN, NO_SETUP

_PACKET: Final = 6
# Total length of the block before; type, total length, interface, time high and low, captured and original length of
# this one; then of the event in it: id, its kind and endpoint in one word, status, length.
_BLOCK: Final = Struct("<IIIIIIIIQQ12xiI")
_BLOCK_SIZE: Final = 76
# Numbers that are only looked up have no type: where this is compiled, they stay the objects that they are.
_Block: TypeAlias = "tuple[int, int, int, int, int, int, int, int, Any, Any, int, int]"
_BEFORE: Final = 4
_DATA_AT: Final = 28
_SETUP_AT: Final = 68
# Of a block beside the packet and its padding.
_OVERHEAD: Final = 32
_HEADER_SIZE: Final = 64
_SUBMITTED: Final = 0x53  # S
_COMPLETED: Final = 0x43  # C
_ISOCHRONOUS: Final = 0
# Of bmRequestType: 0 if it is a standard request.
_TYPE: Final = 0x60
#: Kinds of events that are known at a time, of an interface: hostile ones are all different.
MAX_LANES = 4096
#: Packets after which what was gathered is added to the statistics.
MAX_GATHERED = 1 << 15
_WORD: Final = 0x100000000


class _Lane:
    """What events of one kind have in common: submits of an endpoint, or completions of them.

    stage: SUBMIT or COMPLETE, None if each of them is for `Statistics.add`.
    took: durations (ns) of URBs that came back from `begin` (ns) on, before `end`, and moved `bytes`.
    """

    __slots__ = ("begin", "bytes", "control", "end", "endpoint", "in_flight", "key", "outward", "stage", "took")

    def __init__(
        self, stage: int | None, key: int, in_flight: InFlight | None = None, endpoint: EndpointTotals | None = None
    ) -> None:
        kind = key & TYPE_BITS
        self.stage = stage
        self.key = key
        self.in_flight = InFlight() if in_flight is None else in_flight
        self.endpoint = endpoint
        self.control = kind == CONTROL_BITS
        self.outward = not key & DIR_IN
        self.took: list[int] = []
        self.bytes = self.begin = self.end = 0

    def teaches_nothing(self, pending: Pending) -> bool:
        """A control request that went the same way, and is no standard one, describes nothing of its device."""
        return pending[2] == self.key and bool(pending[4][0] & _TYPE)

    def begins(self, now_ns: int, timeline: Timeline) -> None:
        """What comes back now is in another slice of the time line than what came before."""
        self.gathered(timeline)
        self.begin = now_ns // timeline.width_ns * timeline.width_ns
        self.end = self.begin + timeline.width_ns

    def gathered(self, timeline: Timeline) -> None:
        """Add what was gathered to the endpoint."""
        endpoint, took = self.endpoint, self.took
        if endpoint is None or not took:
            return
        endpoint.urbs += len(took)
        endpoint.bytes += self.bytes
        endpoint.times.add_all(took)
        cell = timeline.cell(endpoint.series, self.begin)
        cell[URBS] += len(took)
        cell[BYTES] += self.bytes
        cell[TIMED] += len(took)
        cell[TIME_SUM_NS] += sum(took)
        cell[TIME_MAX_NS] = max(cell[TIME_MAX_NS], *took)
        took.clear()
        self.bytes = 0


class _Place:
    """An interface whose packets can be counted here: its lanes, and what its packets add to its totals.

    base_ns: time of the clock's high word `high`.
    """

    __slots__ = ("base_ns", "count", "first_ns", "high", "lanes", "last_ns", "totals")

    def __init__(self, totals: InterfaceTotals) -> None:
        self.totals = totals
        self.lanes: dict[int, _Lane] = {}
        self.high = -1
        self.base_ns = 0
        self.count = 0
        self.first_ns = END_OF_TIME
        self.last_ns = 0

    def reaches(self, high: int) -> bool:
        """Whether times with this high word are counted here; `base_ns` is that of the word from now on."""
        if high != self.high:
            interface = self.totals.interface
            self.high, self.base_ns = high, high * _WORD * interface.multiplier + interface.offset_ns
        # Not even the last one of the word is beyond all clocks.
        return 0 < self.base_ns < END_OF_TIME - _WORD * self.totals.interface.multiplier

    def gathered(self, timeline: Timeline) -> None:
        """Add what was gathered to the totals."""
        totals = self.totals
        if self.count:
            totals.packets += self.count
            totals.last_ns = max(totals.last_ns, self.last_ns)
            totals.first_ns = min(totals.first_ns or END_OF_TIME, self.first_ns)
            self.count = 0
        for lane in self.lanes.values():
            lane.gathered(timeline)


class Runs:
    """Counts into `statistics`, which must have no filter. They are right only after `finish`."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._places: dict[Interface, _Place | None] = {}
        self._since = 0
        self._evictions = 0

    def finish(self) -> None:
        """Add what was gathered to the statistics."""
        for place in self._places.values():
            if place is not None:
                place.gathered(self._statistics.timeline)
        self._since = 0

    def take(self, buffer: bytes, at: int, section: Sequence[Interface]) -> int:
        """Count the packets of a run of blocks, little-endian, from `at` on; where the run ends.

        It ends before the first block that is no enhanced packet, has options, or is not as it should be, and where the
        buffer nearly does.
        """
        limit = len(buffer) - _BLOCK_SIZE
        while _BEFORE <= at < limit:
            block: _Block = _BLOCK.unpack_from(buffer, at - _BEFORE)
            _, kind, _, number, high, _, _, _, _, _, _, _ = block
            place = self._place(section[number]) if kind == _PACKET and number < len(section) else None
            if place is None or not place.reaches(high):
                break
            end = self._run(place, number, buffer, at, limit)
            if end == at:
                break
            at = end
        if self._since > MAX_GATHERED:
            self._statistics.keep_budget()
            self.finish()
        return at

    def _run(self, place: _Place, number: int, buffer: bytes, at: int, limit: int) -> int:
        """Those of one interface, as long as the high word of their time stays the same."""
        unpack, lanes, totals, interface = _BLOCK.unpack_from, place.lanes, place.totals, place.totals.interface
        word, base_ns, multiplier = place.high, place.base_ns, interface.multiplier
        first_ns, last_ns, count = place.first_ns, place.last_ns, 0
        block: _Block = unpack(buffer, at - _BEFORE)
        while True:
            _, kind, size, where, high, low, captured, original, urb_id, what, status, length = block
            end = at + size
            if size != (captured + _OVERHEAD + 3 & -4) or kind != _PACKET or end > limit:
                break
            block = unpack(buffer, end - _BEFORE)
            if block[0] != size or high != word or where != number or captured < _HEADER_SIZE:
                break
            now_ns = base_ns + low * multiplier
            lane = lanes.get(what)
            if lane is None:
                lane = self._lane(place, what)
            urbs = lane.in_flight.urbs
            pending = None if status or lane.stage != COMPLETE else urbs.get(urb_id)
            if pending is not None and 0 < pending[1] <= now_ns and (not lane.control or lane.teaches_nothing(pending)):
                del urbs[urb_id]
                if not lane.begin <= now_ns < lane.end:
                    lane.begins(now_ns, self._statistics.timeline)
                lane.took.append(now_ns - pending[1])
                lane.bytes += pending[3] if lane.outward and not length else length
            elif lane.stage == SUBMIT and urb_id not in urbs:
                setup = buffer[at + _SETUP_AT : at + _SETUP_AT + 8] if lane.control else NO_SETUP
                urbs[urb_id] = totals, now_ns, lane.key, length, setup, False
                if len(urbs) > lane.in_flight.most:
                    lane.in_flight.most = len(urbs)
            else:
                count -= 1  # `add` counts it
                self._add((interface, now_ns, buffer, at + _DATA_AT, at + _DATA_AT + captured, original - captured, []))
            count += 1
            if now_ns > last_ns:
                last_ns = now_ns
            if now_ns < first_ns:
                first_ns = now_ns
            at = end
        place.count, place.first_ns, place.last_ns = place.count + count, first_ns, last_ns
        self._since += count
        return at

    def _add(self, packet: Packet) -> None:
        """One that is not as nearly all are."""
        self._statistics.add(packet)
        self._look()

    def _look(self) -> None:
        """Endpoints of which nothing is in flight may have been forgotten: what is known of them is no longer true."""
        if self._evictions != self._statistics.evictions:
            self._evictions = self._statistics.evictions
            self._forget()

    def _forget(self) -> None:
        self.finish()
        for place in self._places.values():
            if place is not None:
                place.lanes.clear()

    def _place(self, interface: Interface) -> _Place | None:
        """None if its packets are to be looked at one by one."""
        self._look()
        if interface not in self._places:
            totals = self._statistics.see(interface)
            plain = interface.link_type == USB_LINUX_MMAPPED and interface.order == "<" and interface.divisor == 1
            self._places[interface] = _Place(totals) if plain else None
        place = self._places[interface]
        return None if place is None or place.totals.comments else place

    def _lane(self, place: _Place, what: int) -> _Lane:
        """That of events with this second word of their header. None is kept before the first one was added."""
        event, kind, epnum = what & 0xFF, what >> 8 & 0xFF, what >> 16 & 0xFF
        key = endpoint_key(what >> 32 & 0xFFFF, what >> 24 & 0xFF, kind, epnum)
        in_flight = self._statistics.in_flight_of(place.totals, key)
        if event == _SUBMITTED and in_flight is not None:
            lane = _Lane(SUBMIT, key, in_flight)
        elif event == _COMPLETED and kind != _ISOCHRONOUS and in_flight is not None and key in place.totals.endpoints:
            lane = _Lane(COMPLETE, key, in_flight, place.totals.endpoints[key])
        else:
            return _Lane(None, key)
        if len(place.lanes) >= MAX_LANES:
            self._forget()
        return place.lanes.setdefault(what, lane)
