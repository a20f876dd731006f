"""Reads the devices of a capture, packet by packet; what they have sent stays where it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from struct import Struct
from typing import Protocol

from usbip_capture.recorded.conversation import Exchange, RecordedDevice
from usbip_capture.recorded.exchanges import Endpoint, Exchanges, Open, Row
from usbip_capture.recorded.rows import MemoryStorage, Storage
from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED, USBPCAP, is_usb
from usbip_capture.recordings.packets import Interface, Packet
from usbip_capture.recordings.urb_events import (
    AS_REQUESTED,
    LATE_COMPLETE,
    SUBMIT,
    Event,
    control_data,
    decoder,
    split_key,
)
from usbip_capture.usb.setup import DT_DEVICE, GET_DESCRIPTOR
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, IsoPacket, TransferType

_USBMON_HEADER = 64
_INTERVAL_AT = 48
_USBPCAP_HEADER = 27
_USBPCAP_ISO = Struct("<III")
_CONTROL, _ISOCHRONOUS = TransferType.CONTROL, TransferType.ISOCHRONOUS
#: How a request for the device descriptor begins; where that has idVendor and idProduct. Ref: USB 2.0, table 9-8
_READS_DEVICE = bytes((DIR_IN, GET_DESCRIPTOR, 0, DT_DEVICE))
_IDENTITY = slice(8, 12)
_DEVICE_SIZE = 18
#: Transfers of an endpoint that are under way at once: of a capture without completions, no more stay in memory.
_MAX_OPEN = 1 << 16
#: Of an interface as we describe it: `USB/IP pi:3240 1-1.2 303a:4001 Product`. A server may be `replay:a file`.
_OURS = re.compile(r"^USB/IP \S.*? (?P<busid>\S+) (?P<vid>[0-9a-f]{4}):(?P<pid>[0-9a-f]{4})(?!\S)")


class Content(Protocol):
    """The bytes of a capture, to be read again."""

    def place(self, portion: bytes) -> int:
        """Where a portion begins in it: called for each one that has packets, in order."""

    def read(self, at: int, size: int) -> bytes:
        """Bytes of it. Raises CaptureError: they are not there any more."""


class _Kept:
    """The content of a capture that is not a file."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self.place = self._storage.append
        self.read = self._storage.read


def read_devices(
    packets: Iterable[Packet], content: Content | None = None, storage: Storage | None = None
) -> list[RecordedDevice]:
    """The devices of a capture, in the order in which they appear.

    content: where data stay; storage: where the index is; both in memory without. Raises what `packets` does.
    """
    reading = _Reading(content or _Kept(), storage or MemoryStorage())
    reading.read(packets)
    return [whole.device for whole in reading.found]


class _Whole:
    """A device, its exchanges, and by endpoint number what is under way.

    identity: idVendor and idProduct as they are in its device descriptor. identifying: the id of the URB that reads it.
    """

    __slots__ = ("device", "exchanges", "identifying", "identity", "under_way")

    def __init__(self, device: RecordedDevice, exchanges: Exchanges) -> None:
        self.device = device
        self.exchanges = device.exchanges = exchanges
        self.under_way: dict[int, dict[int, Open]] = {}
        self.identity = b""
        self.identifying = -1

    def note_request(self, urb_id: int, setup: bytes) -> None:
        """Ids are used again, also where a completion was lost."""
        if setup[:4] == _READS_DEVICE:
            self.identifying = urb_id
        elif urb_id == self.identifying:
            self.identifying = -1


class _Lane:
    """What the events with one endpoint's key have in common. answered: there are completions.

    brings: they may have data. lacks_interval: that of an interrupt endpoint is in its submits, and not known so far.
    """

    __slots__ = (
        "address",
        "answered",
        "brings",
        "endpoint",
        "exchanges",
        "kind",
        "lacks_interval",
        "under_way",
        "whole",
    )

    def __init__(self, whole: _Whole, kind: TransferType, address: int) -> None:
        self.whole = whole
        self.exchanges = whole.exchanges
        self.kind = kind
        self.address = address
        self.answered = self.lacks_interval = False
        self.brings = kind == _CONTROL or bool(address & DIR_IN)
        self.under_way = whole.under_way.setdefault(address & 0x0F, {})
        self.endpoint = Endpoint(kind) if kind == _CONTROL else whole.exchanges.endpoint(address, kind)


class _Side:
    """An interface of the capture. index: of it in the rows. former: lanes of devices whose number another one has."""

    __slots__ = ("decode", "former", "index", "interface", "lanes")

    def __init__(self, interface: Interface, index: int) -> None:
        self.interface = interface
        self.index = index
        known = is_usb(interface.link_type)
        self.decode = decoder(interface.link_type, interface.order) if known else None
        self.lanes: dict[int, _Lane] = {}
        self.former: list[_Lane] = []


class _Reading:
    def __init__(self, content: Content, storage: Storage) -> None:
        self.found: list[_Whole] = []
        self._wholes: dict[tuple[int, int, int], _Whole] = {}
        self._content = content
        self._storage = storage
        self._sides: list[_Side] = []
        self._side_of: dict[Interface, _Side] = {}

    def read(self, packets: Iterable[Packet]) -> None:
        """All of them."""
        latest: bytes | None = None
        begins = 0
        for number, (interface, time_ns, portion, begin, end, missing, _) in enumerate(packets, 1):
            side = self._side_of.get(interface) or self._add(interface)
            if side.decode is None:
                continue
            if portion is not latest:
                latest, begins = portion, self._content.place(portion)
            event = side.decode(portion, begin, end)
            if event is None:
                if side.interface.link_type == USBPCAP:
                    self._data_stage(side, portion[begin:end], begins + begin)
                continue
            lane = side.lanes.get(event[2]) or self._lane(side, event[2])
            if event[0] == SUBMIT:
                at = event[7]
                if lane.lacks_interval:
                    self._interval(lane, side, portion, begin)
                if lane.kind == _CONTROL:
                    lane.whole.note_request(event[1], event[5])
                sent = b"" if lane.address & DIR_IN else portion[begin + at : min(begin + at + event[4], end)]
                _submit(lane, number, time_ns, event, sent, missing, begins + begin, end - begin, side.index)
            else:
                if event[1] == lane.whole.identifying and lane.kind == _CONTROL:
                    lane = self._identified(side, lane, event, portion[begin + event[7] : end])
                self._complete(lane, number, time_ns, event, end - begin, begins + begin, side)
        self._finish()

    def _finish(self) -> None:
        for whole in self.found:
            for under_way in whole.under_way.values():
                for found in under_way.values():
                    whole.exchanges.abandon(found)
                under_way.clear()
        for side in self._sides:
            if side.interface.link_type == USBPCAP:
                _settle_only_sent(side)

    def _data_stage(self, side: _Side, raw: bytes, at: int) -> None:
        """What is sent in a control transfer, which older USBPcap has as a packet of its own."""
        apart = control_data(raw)
        lane = side.lanes.get(apart[1]) if apart is not None else None
        found = lane.under_way.get(apart[0]) if apart is not None and lane is not None else None
        if apart is None or lane is None or found is None:
            return
        setup, data_at = lane.exchanges.at(found.place).setup, apart[2]
        length = setup[6] | setup[7] << 8
        if not setup[0] & DIR_IN:
            data = raw[data_at : data_at + length]
            whole = len(data) == length
            lane.under_way[apart[0]] = lane.exchanges.sent(found, setup, data, at + data_at, whole=whole)

    def _add(self, interface: Interface) -> _Side:
        side = self._side_of[interface] = _Side(interface, len(self._sides))
        self._sides.append(side)
        return side

    def _lane(self, side: _Side, key: int) -> _Lane:
        busnum, devnum, kind, address = split_key(key)
        place = side.index, busnum, devnum
        whole = self._wholes.get(place)
        if whole is None:
            device = RecordedDevice(busnum, devnum)
            found = _OURS.match(side.interface.description)
            if found:
                device.busid = found["busid"]
                device.vid_pid = int(found["vid"], 16), int(found["pid"], 16)
            whole = self._wholes[place] = _Whole(device, Exchanges(self._storage, self._fetch))
            self.found.append(whole)
        lane = side.lanes[key] = _Lane(whole, TransferType(kind & 3), address)
        lane.lacks_interval = lane.kind == TransferType.INTERRUPT and side.interface.link_type == USB_LINUX_MMAPPED
        return lane

    def _identified(self, side: _Side, lane: _Lane, event: Event, descriptor: bytes) -> _Lane:
        """The lane of the device that has answered with its descriptor: numbers are used again, by another device."""
        before, identity = lane.whole, descriptor[_IDENTITY]
        before.identifying = -1
        if len(descriptor) < _DEVICE_SIZE or event[3] or before.identity in (b"", identity):
            before.identity = before.identity or (identity if len(descriptor) >= _DEVICE_SIZE else b"")
            return lane
        asked = lane.under_way.pop(event[1], None)
        left = {key: one for key, one in side.lanes.items() if one.whole is before}
        side.former += left.values()
        side.lanes = {key: one for key, one in side.lanes.items() if key not in left}
        self._wholes = {place: one for place, one in self._wholes.items() if one is not before}
        made = self._lane(side, event[2])
        made.whole.identity = identity
        if asked is not None:  # this one was asked already
            row, setup = before.exchanges.row(asked.place), before.exchanges.at(asked.place).setup
            before.exchanges.abandon(asked)
            made.under_way[event[1]] = made.exchanges.begin(
                row.number, row.time_ns, _CONTROL, row.endpoint, setup, b"", asked.length, False,
                row.submit_at, row.submit_size, side.index,
            )  # fmt: skip
        return made

    def _interval(self, lane: _Lane, side: _Side, portion: bytes, begin: int) -> None:
        """That of an endpoint, from the first submit."""
        lane.lacks_interval = False
        (interval,) = Struct(side.interface.order + "i").unpack_from(portion, begin + _INTERVAL_AT)
        lane.whole.device.intervals[lane.address] = interval

    def _complete(self, lane: _Lane, number: int, time_ns: int, event: Event, size: int, at: int, side: _Side) -> None:
        stage, urb_id, _, status, moved, _, _, _ = event
        found = lane.under_way.pop(urb_id, None)
        endpoint = lane.endpoint
        if found is not None and 0 < found.length < moved:
            lane.exchanges.abandon(found)
            found = None  # ids are used again: its own completion was lost, and so was the submit of this one
        if found is None:
            if stage != LATE_COMPLETE:
                lane.whole.device.strays += 1
            if stage == LATE_COMPLETE or lane.kind == _CONTROL or not lane.address & DIR_IN:
                return
            found = lane.exchanges.begin(0, time_ns, lane.kind, lane.address, NO_SETUP, b"", 0, False)
        if moved > endpoint.longest:
            endpoint.longest = moved
        lane.answered = True
        cut = lane.brings and moved > size - event[7] and self._is_cut(lane, found, event, at, size)
        lane.exchanges.end(found, number, time_ns, status, endpoint.answers, cut, at, size)

    def _is_cut(self, lane: _Lane, found: Open, event: Event, at: int, size: int) -> bool:
        """Whether it is data of IN that are missing."""
        row = lane.exchanges.row(found.place)._replace(done_at=at, done_size=size, answered=1, cut=1)
        if lane.kind == _ISOCHRONOUS:
            return self._fetch(lane.exchanges, found.place, row).cut
        return bool(row.endpoint & DIR_IN)

    # -- and later

    def _fetch(self, exchanges: Exchanges, place: int, row: Row) -> Exchange:
        kind = TransferType(row.transfer_type)
        exchange = (
            self._begun(exchanges, place, kind, row) if row.number else Exchange(0, row.time_ns, kind, row.endpoint)
        )
        if row.done_size:
            self._ended(exchange, row)
        elif row.answered:
            exchange.answered, exchange.end_ns, exchange.moved = row.answered, row.end_ns, exchange.length
        return exchange

    def _event(self, row: Row, at: int, size: int) -> tuple[Event, bytes]:
        raw = self._content.read(at, size)
        decode = self._sides[row.interface].decode
        event = decode(raw, 0, len(raw)) if decode is not None else None
        if event is None:
            raise ValueError("a packet that was decoded before cannot be decoded")
        return event, raw

    def _begun(self, exchanges: Exchanges, place: int, kind: TransferType, row: Row) -> Exchange:
        (_, _, _, _, length, setup, _, data_at), raw = self._event(row, row.submit_at, row.submit_size)
        exchange = Exchange(row.number, row.time_ns, kind, row.endpoint, setup, length=length)
        if not row.endpoint & DIR_IN:
            exchange.sent = raw[data_at : data_at + length]
            if kind == _CONTROL and length and not exchange.sent:
                exchange.sent = self._sent_apart(exchanges, place)
            exchange.cut = len(exchange.sent) < length and (bool(row.cut) or kind != _ISOCHRONOUS)
        return exchange

    def _sent_apart(self, exchanges: Exchanges, place: int) -> bytes:
        found = exchanges.where_sent(place)
        return b"" if found is None else self._content.read(*found)

    def _ended(self, exchange: Exchange, row: Row) -> None:
        (_, _, _, status, moved, _, _, data_at), raw = self._event(row, row.done_at, row.done_size)
        exchange.answered, exchange.end_ns, exchange.status = row.answered, row.end_ns, status
        if not row.number:
            exchange.length = max(moved, 0)
        exchange.moved = _moved(exchange, moved)
        if exchange.transfer_type == _ISOCHRONOUS:
            _isochronous(exchange, raw, data_at, self._sides[row.interface].interface)
        elif exchange.endpoint & DIR_IN:
            exchange.data = raw[data_at : data_at + exchange.moved]
            exchange.cut = len(exchange.data) < exchange.moved


def _submit(
    lane: _Lane, number: int, time_ns: int, event: Event, sent: bytes, missing: int, at: int, size: int, index: int
) -> None:
    _, urb_id, _, _, length, setup, _, _ = event
    address = lane.address
    if lane.kind == _CONTROL:
        address = DIR_IN if setup[0] & DIR_IN and length else 0
        if address:
            sent = b""
    elif length > lane.endpoint.longest:
        lane.endpoint.longest = length
    # usbmon has limits of its own: what is not there need not be missing in the packet.
    cut = not address & DIR_IN and len(sent) < length and (bool(missing) or lane.kind != _ISOCHRONOUS)
    under_way = lane.under_way
    if urb_id in under_way or len(under_way) >= _MAX_OPEN:
        lost = urb_id if urb_id in under_way else next(iter(under_way))
        lane.exchanges.abandon(under_way.pop(lost))
    begin = lane.exchanges.begin
    under_way[urb_id] = begin(number, time_ns, lane.kind, address, setup, sent, length, cut, at, size, index)


def _moved(exchange: Exchange, moved: int) -> int:
    """USBPcap has no length of what was sent, and QEMU 0."""
    if moved == AS_REQUESTED:
        return 0 if exchange.endpoint & DIR_IN or exchange.status else exchange.length
    if not moved and not exchange.status and not exchange.endpoint & DIR_IN:
        return 0 if exchange.transfer_type == _ISOCHRONOUS else exchange.length
    return max(moved, 0)


def _settle_only_sent(side: _Side) -> None:
    """Before USBPcap 1.2 OUT transfers are recorded when they are submitted only: where none was completed, all were.

    Ref: USBPcap, CHANGELOG
    """
    lanes = [*side.lanes.values(), *side.former]
    out = [lane for lane in lanes if lane.kind != _CONTROL and not lane.address & DIR_IN]
    ended = {lane.whole for lane in out if lane.answered}
    for whole in {lane.whole for lane in out} - ended:
        whole.exchanges.settle_sent()


def _isochronous(exchange: Exchange, raw: bytes, data_at: int, interface: Interface) -> None:
    """The packets of a completion, and their data without gaps."""
    found: list[IsoPacket] = []
    if interface.link_type == USB_LINUX_MMAPPED:
        for status, offset, length in Struct(interface.order + "iII4x").iter_unpack(
            raw[_USBMON_HEADER : _USBMON_HEADER + (data_at - _USBMON_HEADER) // 16 * 16]
        ):
            found.append(IsoPacket(offset, length, length, status))
    elif interface.link_type == USBPCAP and len(raw) >= _USBPCAP_HEADER + 12:
        begin = _USBPCAP_HEADER + 12
        for offset, length, status in _USBPCAP_ISO.iter_unpack(raw[begin : begin + (data_at - begin) // 12 * 12]):
            found.append(IsoPacket(offset, length, length, -71 if status else 0))
    exchange.packets = found
    if exchange.endpoint & DIR_IN:
        data = raw[data_at:]
        exchange.data = b"".join(data[p.offset : p.offset + p.actual_length] for p in found)
        exchange.cut = len(exchange.data) < sum(p.actual_length for p in found)
