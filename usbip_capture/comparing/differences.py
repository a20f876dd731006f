"""Where two recordings of one device differ: what was asked, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from usbip_capture.comparing.alignment import aligned
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.descriptors import RecordedDescriptors
from usbip_capture.recorded.keys import key_of
from usbip_capture.recorded.tags import is_cbw, without_tag
from usbip_capture.usb.setup import (
    DT_BOS,
    DT_CONFIGURATION,
    DT_DEVICE,
    DT_DEVICE_QUALIFIER,
    DT_REPORT,
    DT_STRING,
    GET_DESCRIPTOR,
)
from usbip_capture.usb.status import status_name
from usbip_capture.usb.urb import DIR_IN, TransferType

#: Kinds of differences.
MISSING, ADDED, STATUS, LENGTH, DATA, TIME = "missing", "added", "status", "length", "data", "time"
DESCRIPTOR = "descriptor"

_CONTROL = TransferType.CONTROL
_NANO = 1e-9
_SHOWN = 8
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
    """kind: MISSING and so on. first, second: the exchanges, None if there is none. text: what differs, as a phrase."""

    kind: str
    first: Exchange | None
    second: Exchange | None
    text: str


@dataclass(slots=True)
class Pair:
    """What is side by side: an exchange of each recording, None if there is none, and how they differ."""

    first: Exchange | None
    second: Exchange | None
    differences: list[Difference] = field(default_factory=list)


@dataclass(slots=True)
class Comparison:
    """pairs: in the order of time of the first recording. descriptors: differences of what describes the device."""

    pairs: list[Pair]
    descriptors: list[Difference]

    @property
    def differences(self) -> list[Difference]:
        """All of them."""
        return [*self.descriptors, *(difference for pair in self.pairs for difference in pair.differences)]


def compare(
    first: Sequence[Exchange],
    second: Sequence[Exchange],
    descriptors: tuple[RecordedDescriptors, RecordedDescriptors],
    tolerance: float | None = None,
) -> Comparison:
    """Two recordings of a device.

    tolerance: seconds by which the time from submit to completion may differ; None: it is not compared.
    Descriptors are compared by themselves: how often a system reads them is not a matter of the session.
    """
    pairs: list[Pair] = []
    lanes_of_first, lanes_of_second = _lanes(first), _lanes(second)
    for lane in dict.fromkeys([*lanes_of_first, *lanes_of_second]):
        ours, theirs = lanes_of_first.get(lane, []), lanes_of_second.get(lane, [])
        kept = _shortest_cut([*ours, *theirs])
        for i, j in aligned(_keys(ours, kept), _keys(theirs, kept)):
            pair = Pair(None if i is None else ours[i][1], None if j is None else theirs[j][1])
            pair.differences = list(_between(pair, tolerance))
            pairs.append(pair)
    pairs.sort(key=_order(first, second))
    return Comparison(pairs, list(_of_descriptors(*descriptors)))


def _lanes(exchanges: Sequence[Exchange]) -> dict[tuple[int, int], list[tuple[bytes, Exchange]]]:
    """What is in an order of its own, with what was asked: the requests, and each endpoint."""
    lanes: dict[tuple[int, int], list[tuple[bytes, Exchange]]] = defaultdict(list)
    command = b""
    for exchange in exchanges:
        if exchange.unlinked or not exchange.number:
            continue
        if is_cbw(exchange.sent):
            command = without_tag(exchange.sent)
        if exchange.transfer_type != _CONTROL:
            key = _key(exchange, command)
            lanes[exchange.transfer_type, exchange.endpoint].append((key, exchange))
        elif exchange.setup[1] != GET_DESCRIPTOR or exchange.setup[0] & 0x60:
            lanes[_CONTROL, 0].append((key_of(exchange), exchange))
    return lanes


def _shortest_cut(lane: list[tuple[bytes, Exchange]]) -> int | None:
    """How much there is of what was sent where the least is left of it; None if all of it is there."""
    return min((len(one.sent) for _, one in lane if one.cut and not one.endpoint & DIR_IN), default=None)


def _keys(lane: list[tuple[bytes, Exchange]], kept: int | None) -> list[bytes]:
    """What is aligned: what was sent, as far as both captures have it."""
    if kept is None:
        return [key for key, _ in lane]
    return [one.setup + one.length.to_bytes(4, "little") + without_tag(one.sent)[:kept] for _, one in lane]


def _key(exchange: Exchange, command: bytes) -> bytes:
    """Of another endpoint than 0. command: that of Bulk-Only Transport which it answers, if it is a disk's."""
    if exchange.transfer_type == TransferType.ISOCHRONOUS:
        return b""
    return command if exchange.endpoint & DIR_IN else key_of(exchange)


def _order(first: Sequence[Exchange], second: Sequence[Exchange]) -> Callable[[Pair], int]:
    begin = min((one.time_ns for one in first), default=0), min((one.time_ns for one in second), default=0)

    def moment(pair: Pair) -> int:
        return pair.first.time_ns - begin[0] if pair.first else pair.second.time_ns - begin[1] if pair.second else 0

    return moment


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
