"""What is in an order of its own in a recording: its requests, and each endpoint; kept where its index is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

from usbip_capture.recorded.exchanges import Exchanges
from usbip_capture.recorded.keys import digest_of
from usbip_capture.recorded.rows import Rows
from usbip_capture.recorded.tags import is_cbw, without_tag
from usbip_capture.usb.setup import GET_DESCRIPTOR
from usbip_capture.usb.status import GONE, UNLINKED
from usbip_capture.usb.urb import DIR_IN, TransferType

T = TypeVar("T")

_CONTROL, _ISOCHRONOUS = TransferType.CONTROL, TransferType.ISOCHRONOUS
_TYPE_BITS = 0x60
_NOTHING = bytes(8)
_WINDOW = 1 << 14


class Lane:
    """rows: place in the recording, what was asked, time. kept: of data that were cut, the least that is there."""

    def __init__(self, exchanges: Exchanges) -> None:
        self.exchanges = exchanges
        self.rows: Rows = exchanges.table("<Q8sq")
        self.kept: int | None = None


def lanes_of(exchanges: Exchanges) -> dict[tuple[int, int], Lane]:
    """By transfer type and endpoint address: what the device has ended."""
    lanes: dict[tuple[int, int], Lane] = {}
    command = _NOTHING  # of Bulk-Only Transport, which a disk answers
    for place, row in enumerate(exchanges.rows()):
        if not row.answered or not row.number or row.status in UNLINKED or row.status in GONE:
            continue
        kind, key, address = row.transfer_type, _NOTHING, row.endpoint
        if kind == _CONTROL:
            one, address = exchanges.at(place), 0
            if one.setup[1] == GET_DESCRIPTOR and not one.setup[0] & _TYPE_BITS:
                continue
            key = digest_of(one)
        elif kind != _ISOCHRONOUS and address & DIR_IN:
            key = command
        elif kind != _ISOCHRONOUS:
            one = exchanges.at(place)
            key = digest_of(one)
            command = key if is_cbw(one.sent) else command
        lane = lanes.get((kind, address))
        if lane is None:
            lane = lanes[kind, address] = Lane(exchanges)
        lane.rows.append(lane.rows.pack(place, key, row.time_ns))
        if row.cut and not row.endpoint & DIR_IN:
            sent = len(exchanges.at(place).sent)
            lane.kept = sent if lane.kept is None else min(lane.kept, sent)
    return lanes


class Keys(Sequence[bytes]):
    """What was asked in a lane; if `kept` is not None, so much of what was sent, and its length."""

    def __init__(self, lane: Lane, kept: int | None) -> None:
        self._lane = lane
        self._kept = kept

    def __len__(self) -> int:
        return len(self._lane.rows)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        number, key, _ = self._lane.rows[place]
        if self._kept is None:
            return bytes(key)
        one = self._lane.exchanges.at(number)
        return one.setup + one.length.to_bytes(4, "little") + without_tag(one.sent)[: self._kept]


def in_order(found: Iterable[T]) -> Iterator[T]:
    """What is nearly in order, in order."""
    waiting: list[T] = []
    for one in found:
        waiting.append(one)
        if len(waiting) == 2 * _WINDOW:
            waiting.sort()
            yield from waiting[:_WINDOW]
            del waiting[:_WINDOW]
    waiting.sort()
    yield from waiting
