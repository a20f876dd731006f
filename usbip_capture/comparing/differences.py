"""Where two recordings of one device differ: what was asked, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge

from usbip_capture.comparing.alignment import aligned
from usbip_capture.comparing.lanes import Keys, Lane, in_order, lanes_of
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.descriptors import RecordedDescriptors
from usbip_capture.recorded.exchanges import Exchanges, indexed
from usbip_capture.recorded.rows import Rows
from usbip_capture.recorded.tags import without_tag
from usbip_capture.usb.setup import (
    DT_BOS,
    DT_CONFIGURATION,
    DT_DEVICE,
    DT_DEVICE_QUALIFIER,
    DT_REPORT,
    DT_STRING,
)
from usbip_capture.usb.status import status_name
from usbip_capture.usb.urb import DIR_IN, TransferType

#: Kinds of differences.
MISSING, ADDED, STATUS, LENGTH, DATA, TIME = "missing", "added", "status", "length", "data", "time"
DESCRIPTOR = "descriptor"

_CONTROL, _ISOCHRONOUS = TransferType.CONTROL, TransferType.ISOCHRONOUS
_NANO = 1e-9
_SHOWN = 8
#: Differences that are kept one by one.
MAX_DIFFERENCES = 20_000
_NAMES = {
    DT_DEVICE: "device descriptor",
    DT_CONFIGURATION: "configuration descriptor",
    DT_STRING: "string",
    DT_BOS: "BOS descriptor",
    DT_DEVICE_QUALIFIER: "device qualifier",
    DT_REPORT: "HID report descriptor",
}


@dataclass(slots=True)
class Difference:
    """kind: MISSING and so on. first, second: the exchanges without their data, None if there is none.

    text: what differs, as a phrase. asked: what was asked.
    """

    kind: str
    first: Exchange | None
    second: Exchange | None
    text: str
    asked: str = ""


@dataclass(slots=True)
class Pair:
    """What is side by side: an exchange of each recording, None if there is none, and how they differ."""

    first: Exchange | None
    second: Exchange | None
    differences: list[Difference] = field(default_factory=list)


class Pairs:
    """Pairs in the order of time of the first recording, made each time that they are gone through."""

    def __init__(self, first: Exchanges, second: Exchanges, lanes: list[Rows], tolerance: float | None) -> None:
        self._first, self._second = first, second
        self._lanes = lanes  # of each lane: time, places in the first and the second, each and 1
        self._tolerance = tolerance

    def __len__(self) -> int:
        return sum(map(len, self._lanes))

    def __iter__(self) -> Iterator[Pair]:
        for _, i, j in in_order(merge(*(lane.iterate() for lane in self._lanes))):
            pair = Pair(self._first.at(i - 1) if i else None, self._second.at(j - 1) if j else None)
            pair.differences = list(_between(pair, self._tolerance))
            yield pair


class Comparison:
    """pairs: all. descriptors: differences of what describes the device. differences: the first of them all.

    kinds: how many there are of each kind. both: pairs that both recordings have. begins: time of the first pair in
    each, in nanoseconds.
    """

    def __init__(self, pairs: Pairs, descriptors: list[Difference]) -> None:
        self.pairs = pairs
        self.descriptors = descriptors
        self.differences = descriptors[:MAX_DIFFERENCES]
        self.kinds = Counter(difference.kind for difference in descriptors)
        self.both = 0
        times: tuple[list[int], list[int]] = ([], [])
        for pair in pairs:
            self.both += pair.first is not None and pair.second is not None
            for found, one in zip(times, (pair.first, pair.second), strict=True):
                if one is not None and (not found or one.time_ns < found[0]):
                    found[:] = [one.time_ns]
            for difference in pair.differences:
                self.kinds[difference.kind] += 1
                if len(self.differences) < MAX_DIFFERENCES:
                    self.differences.append(_without_data(difference))
        self.begins = (times[0] or [0])[0], (times[1] or [0])[0]


def compare(
    first: Sequence[Exchange],
    second: Sequence[Exchange],
    descriptors: tuple[RecordedDescriptors, RecordedDescriptors],
    tolerance: float | None = None,
) -> Comparison:
    """Two recordings of a device.

    tolerance: seconds by which the time from submit to completion may differ; None: it is not compared, nor is for
    how long isochronous endpoints were used.
    Descriptors are compared by themselves: how often a system reads them is not a matter of the session.
    """
    ours, theirs = indexed(first), indexed(second)
    lanes_of_ours, lanes_of_theirs = lanes_of(ours), lanes_of(theirs)
    pairs = []
    for lane in dict.fromkeys([*lanes_of_ours, *lanes_of_theirs]):
        left, right = lanes_of_ours.get(lane) or Lane(ours), lanes_of_theirs.get(lane) or Lane(theirs)
        one, other = left.rows, right.rows
        kept = min((some.kept for some in (left, right) if some.kept is not None), default=None)
        found = ours.table("<qQQ")
        streams = lane[0] == _ISOCHRONOUS and tolerance is None and len(one) and len(other)
        for i, j in aligned(Keys(left, kept), Keys(right, kept)):
            if streams and (i is None or j is None):
                continue  # for how long a host streams is a matter of time
            # Of what only the second has, too, the time since its beginning.
            place, where = (0, 0) if i is None else (one[i][0] + 1, one[i][2])
            place_of_other = 0 if j is None else other[j][0] + 1
            moment = where - ours.begins_ns if i is not None or j is None else other[j][2] - theirs.begins_ns
            found.append(found.pack(moment, place, place_of_other))
        pairs.append(found)
    return Comparison(Pairs(ours, theirs, pairs, tolerance), list(_of_descriptors(*descriptors)))


def _without_data(difference: Difference) -> Difference:
    """As it is kept."""
    one, other = (
        None if found is None else replace(found, sent=b"", data=b"", packets=[])
        for found in (difference.first, difference.second)
    )
    asked = str(difference.first or difference.second or "")
    return Difference(difference.kind, one, other, difference.text, asked)


def _between(pair: Pair, tolerance: float | None) -> Iterator[Difference]:
    first, second = pair.first, pair.second
    if first is None or second is None:
        kind = ADDED if first is None else MISSING
        yield Difference(kind, first, second, f"only in the {'second' if first is None else 'first'}")
        return
    if first.status != second.status:
        text = f"status {_status(first.status)}, {_status(second.status)}"
        yield Difference(STATUS, first, second, text)
    knows_length = not (_lacks_length(first) or _lacks_length(second))
    if first.moved != second.moved or (knows_length and first.length != second.length):
        text = f"{first.moved} of {first.length} bytes, {second.moved} of {second.length}"
        yield Difference(LENGTH, first, second, text)
    data, other = first.data, second.data
    if data != other and without_tag(data) == without_tag(other):
        other = data
    if without_tag(first.sent) != without_tag(second.sent):
        data, other = first.sent, second.sent
    if data != other and not (first.cut or second.cut):
        yield Difference(DATA, first, second, _first_byte(data, other))
    if tolerance is not None:
        took = [(one.end_ns - one.time_ns) * _NANO for one in (first, second)]
        if abs(took[0] - took[1]) > tolerance:
            yield Difference(TIME, first, second, f"took {took[0]:.6f} s, {took[1]:.6f} s")


def _lacks_length(exchange: Exchange) -> bool:
    """USBPcap does not record how much of IN was asked for."""
    is_in = exchange.transfer_type != _CONTROL and exchange.endpoint & DIR_IN
    return bool(is_in) and not exchange.length


def _status(status: int) -> str:
    return f"{status} {status_name(status)}" if status else "0"


def _first_byte(data: bytes, other: bytes) -> str:
    at = next((n for n, (one, two) in enumerate(zip(data, other, strict=False)) if one != two), None)
    if at is None:
        at = min(len(data), len(other))
    begin = at - at % _SHOWN if at % _SHOWN + _SHOWN <= 2 * _SHOWN else at
    pieces = [piece[begin : begin + _SHOWN].hex(" ") or "nothing" for piece in (data, other)]
    return f"byte {at}: from {begin} on {pieces[0]}, {pieces[1]}"


def _of_descriptors(first: RecordedDescriptors, second: RecordedDescriptors) -> Iterator[Difference]:
    """Of what both have: what was never read is not different."""
    for key in sorted(first.answers.keys() & second.answers.keys()):
        data, other = first.answers[key], second.answers[key]
        size = min(len(data), len(other)) if _is_partial(data) or _is_partial(other) else None
        if data[:size] != other[:size]:
            yield Difference(DESCRIPTOR, None, None, f"{_name(key)} differs at {_first_byte(data, other)}")


def _is_partial(raw: bytes) -> bool:
    """Whether only the head of it was read."""
    whole = int.from_bytes(raw[2:4], "little") if raw[1:2] in (b"\x02", b"\x0f") else raw[0] if raw else 0
    return len(raw) < whole


def _name(key: tuple[int, int, int]) -> str:
    _, value, index = key
    kind, number = value >> 8, value & 0xFF
    name = _NAMES.get(kind, f"descriptor {kind:#04x}")
    where = f" of interface {index}" if kind == DT_REPORT else ""
    return f"{name}{f' {number}' if number or kind in (DT_STRING, DT_CONFIGURATION) else ''}{where}"
