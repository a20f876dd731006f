"""The conversations in a capture: for each device, what was asked of it and what came, in order and with times."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from struct import Struct

from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED, USBPCAP, is_usb
from usbip_capture.recordings.packets import Interface, Packet
from usbip_capture.recordings.urb_events import (
    AS_REQUESTED,
    LATE_COMPLETE,
    SUBMIT,
    Decode,
    Event,
    control_data,
    decoder,
    split_key,
)
from usbip_capture.usb.status import UNLINKED
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, IsoPacket, TransferType

_USBMON_HEADER = 64
_USBPCAP_HEADER = 27
_USBPCAP_ISO = Struct("<III")
_CONTROL, _ISOCHRONOUS = TransferType.CONTROL, TransferType.ISOCHRONOUS
#: Of an interface as we describe it: `USB/IP pi:3240 1-1.2 303a:4001 Product`. A server may be `replay:a file`.
_OURS = re.compile(r"^USB/IP \S.*? (?P<busid>\S+) (?P<vid>[0-9a-f]{4}):(?P<pid>[0-9a-f]{4})(?!\S)")


@dataclass(slots=True, eq=False)
class Exchange:
    """One URB. number, answered: packets of its submit and its completion, as Wireshark counts them; 0: not there.

    time_ns, end_ns: when they were. endpoint: bEndpointAddress, for control its direction. sent: data of OUT; data:
    what IN has brought, of isochronous transfers as `packets` have it. length: bytes asked for; moved: bytes moved.
    cut: data is missing in the capture.
    """

    number: int
    time_ns: int
    transfer_type: TransferType
    endpoint: int
    setup: bytes = NO_SETUP
    sent: bytes = b""
    length: int = 0
    answered: int = 0
    end_ns: int = 0
    status: int = 0
    moved: int = 0
    data: bytes = b""
    packets: list[IsoPacket] = field(default_factory=list)
    cut: bool = False

    @property
    def whole_data(self) -> bytes:
        """What IN has brought, in its length: zeros stand for what the capture has cut."""
        return self.data.ljust(self.moved, b"\0") if self.cut and self.endpoint & DIR_IN else self.data

    @property
    def unlinked(self) -> bool:
        """Whether it is not the device that has ended it."""
        return not self.answered or self.status in UNLINKED

    def __str__(self) -> str:
        if self.transfer_type == _CONTROL:
            kind, request, value, index, length = (self.setup[0], self.setup[1], *Struct("<HHH").unpack(self.setup[2:]))
            what = f"control {kind:#04x} {request:#04x} wValue {value:#06x} wIndex {index:#06x} wLength {length}"
        else:
            what = f"{self.transfer_type.name.lower()} {self.endpoint:#04x}"
        shown = self.sent[:16].hex(" ") + (" ..." if len(self.sent) > 16 else "")
        return what + (f", {len(self.sent)} bytes: {shown}" if self.sent else "")


@dataclass(slots=True, eq=False)
class RecordedDevice:
    """A device of a capture. bus, number: as the capture has them. busid, vid_pid: as it describes them, or empty.

    strays: completions without a submit, as at the beginning of a capture that began later.
    """

    bus: int
    number: int
    busid: str = ""
    vid_pid: tuple[int, int] | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    strays: int = 0
    _pending: dict[tuple[int, int], Exchange] = field(default_factory=dict)


def read_devices(packets: Iterable[Packet]) -> list[RecordedDevice]:
    """The devices of a capture, in the order in which they appear. Raises what `packets` does."""
    reading = _Reading()
    for number, packet in enumerate(packets, 1):
        reading.see(number, packet)
    return reading.finish()


class _Reading:
    def __init__(self) -> None:
        self.devices: dict[tuple[int, int, int], RecordedDevice] = {}
        self._of_usbpcap: dict[tuple[int, int, int], RecordedDevice] = {}
        self._decoders: dict[Interface, Decode | None] = {}

    def see(self, number: int, packet: Packet) -> None:
        interface, timestamp_ns, portion, begin, end, missing, _ = packet
        if interface not in self._decoders:
            known = is_usb(interface.link_type)
            self._decoders[interface] = decoder(interface.link_type, interface.order) if known else None
        decode = self._decoders[interface]
        if decode is None:
            return
        event = decode(portion, begin, end)
        raw = portion[begin:end]
        if event is None:
            if interface.link_type == USBPCAP:
                self._data_stage(interface, raw)
            return
        busnum, devnum, _, _ = split_key(event[2])
        device = self._device(interface, busnum, devnum)
        if event[0] == SUBMIT:
            _submit(device, number, timestamp_ns, event, raw, missing)
        else:
            _complete(device, number, timestamp_ns, event, raw, interface)

    def finish(self) -> list[RecordedDevice]:
        """The devices, when all packets were seen."""
        for device in self._of_usbpcap.values():
            _settle_only_sent(device.exchanges)
        return list(self.devices.values())

    def _data_stage(self, interface: Interface, raw: bytes) -> None:
        """What is sent in a control transfer, which older USBPcap has as a packet of its own."""
        found = control_data(raw)
        if found is None:
            return
        urb_id, key, data_at = found
        busnum, devnum, _, _ = split_key(key)
        exchange = self._device(interface, busnum, devnum)._pending.get((urb_id, 0))
        if exchange is not None and not exchange.endpoint & DIR_IN:
            exchange.sent = raw[data_at : data_at + exchange.length]
            exchange.cut = len(exchange.sent) < exchange.length

    def _device(self, interface: Interface, busnum: int, devnum: int) -> RecordedDevice:
        key = (id(interface), busnum, devnum)
        device = self.devices.get(key)
        if device is None:
            device = self.devices[key] = RecordedDevice(busnum, devnum)
            if interface.link_type == USBPCAP:
                self._of_usbpcap[key] = device
            found = _OURS.match(interface.description)
            if found:
                device.busid = found["busid"]
                device.vid_pid = int(found["vid"], 16), int(found["pid"], 16)
        return device


def _place(event: Event) -> tuple[TransferType, int]:
    _, _, kind, address = split_key(event[2])
    return TransferType(kind & 3), address


def _submit(device: RecordedDevice, number: int, timestamp_ns: int, event: Event, raw: bytes, missing: int) -> None:
    _, urb_id, _, _, length, setup, _, data_at = event
    kind, address = _place(event)
    if kind == _CONTROL:
        address = DIR_IN if setup[0] & DIR_IN and length else 0
    sent = b"" if address & DIR_IN else raw[data_at : data_at + length]
    exchange = Exchange(number, timestamp_ns, kind, address, setup, sent, length)
    # usbmon has limits of its own: what is not there need not be missing in the packet.
    exchange.cut = not address & DIR_IN and len(sent) < length and (bool(missing) or kind != _ISOCHRONOUS)
    device.exchanges.append(exchange)
    device._pending[urb_id, address & 0x0F] = exchange


def _complete(
    device: RecordedDevice, number: int, timestamp_ns: int, event: Event, raw: bytes, interface: Interface
) -> None:
    stage, urb_id, _, status, moved, _, _, data_at = event
    kind, address = _place(event)
    exchange = device._pending.pop((urb_id, address & 0x0F), None)
    if exchange is not None and 0 < exchange.length < moved:
        exchange = None  # ids are used again: its own completion was lost, and so was the submit of this one
    if exchange is None:
        if stage != LATE_COMPLETE:
            device.strays += 1
        if stage == LATE_COMPLETE or kind == _CONTROL or not address & DIR_IN:
            return
        exchange = Exchange(0, timestamp_ns, kind, address, length=max(moved, 0))
        device.exchanges.append(exchange)
    exchange.answered, exchange.end_ns, exchange.status = number, timestamp_ns, status
    exchange.moved = _moved(exchange, moved)
    data = raw[data_at:]
    if kind == _ISOCHRONOUS:
        _isochronous(exchange, raw, data_at, interface)
    elif exchange.endpoint & DIR_IN:
        exchange.data = data[: exchange.moved]
        exchange.cut = len(exchange.data) < exchange.moved


def _moved(exchange: Exchange, moved: int) -> int:
    """USBPcap has no length of what was sent, and QEMU 0."""
    if moved == AS_REQUESTED:
        return 0 if exchange.endpoint & DIR_IN or exchange.status else exchange.length
    if not moved and not exchange.status and not exchange.endpoint & DIR_IN:
        return 0 if exchange.transfer_type == _ISOCHRONOUS else exchange.length
    return max(moved, 0)


def _settle_only_sent(exchanges: list[Exchange]) -> None:
    """Before USBPcap 1.2 OUT transfers are recorded when they are submitted only: where none was completed, all were.

    Ref: USBPcap, CHANGELOG
    """
    out = [one for one in exchanges if one.transfer_type != _CONTROL and not one.endpoint & DIR_IN]
    for one in out if not any(one.answered for one in out) else ():
        one.answered, one.end_ns, one.moved = one.number, one.time_ns, one.length


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
