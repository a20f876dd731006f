"""What client and server send in sessions made for tests: every kind of transfer, in USB/IP's own words."""

from __future__ import annotations

from tests.builders.tcp_recording import CLIENT, SERVER, Turn
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs
from usbip_capture.wire.server import _ret_submit

INFO = DeviceInfo("1-1", 3, 4, Speed.HIGH, 0x1209, 0x0001)
BULK_IN, BULK_OUT, INTERRUPT_IN, ISO_IN, ISO_OUT = 0x81, 0x02, 0x83, 0x84, 0x05

_ENDPOINTS = b"".join(
    bytes((7, 5, address, kind, size & 255, size >> 8, interval))
    for address, kind, size, interval in (
        (BULK_IN, 2, 512, 0),
        (BULK_OUT, 2, 512, 0),
        (INTERRUPT_IN, 3, 8, 4),
        (ISO_IN, 1, 64, 1),
        (ISO_OUT, 1, 64, 1),
    )
)
_INTERFACE = bytes((9, 4, 0, 0, 5, 0xFF, 0, 0, 0))
_BODY = _INTERFACE + _ENDPOINTS
CONFIGURATION = bytes((9, 2, 9 + len(_BODY), 0, 1, 1, 0, 0x80, 50)) + _BODY


def imported(info: DeviceInfo = INFO) -> list[Turn]:
    """The device is imported."""
    request = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(info.busid)
    reply = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, 0) + structs.pack_device(info)
    return [(CLIENT, request), (SERVER, reply)]


def submit(seqnum: int, urb: Urb, *, count: int | None = None) -> Turn:
    """CMD_SUBMIT; `count` is another number_of_packets than there are."""
    head = structs.pack_submit(urb, seqnum, INFO.devid)
    if count is not None:
        head = head[:32] + (count & 0xFFFFFFFF).to_bytes(4, "big") + head[36:]
    data = b"" if urb.endpoint & 0x80 else bytes(urb.data)
    return CLIENT, head + data + structs.pack_iso(urb.packets)


def reply(seqnum: int, urb: Urb, completion: Completion, *, count: int | None = None) -> Turn:
    """RET_SUBMIT."""
    count = len(urb.packets) if count is None else count
    return SERVER, b"".join(bytes(part) for part in _ret_submit(seqnum, urb, count, completion))


def unlink(seqnum: int, target: int) -> Turn:
    """CMD_UNLINK."""
    return CLIENT, structs.CMD_UNLINK.pack(structs.USBIP_CMD_UNLINK, seqnum, INFO.devid, 0, 0, target)


def unlink_reply(seqnum: int, status: int) -> Turn:
    """RET_UNLINK."""
    return SERVER, structs.RET_UNLINK.pack(structs.USBIP_RET_UNLINK, seqnum, 0, 0, 0, status)


def run(seqnum: int, urb: Urb, data: bytes = b"", status: int = 0) -> list[Turn]:
    """A URB and its reply."""
    moved = len(data) if urb.endpoint & 0x80 else urb.length
    return [submit(seqnum, urb), reply(seqnum, urb, Completion(status, moved, data))]


def described(first: int = 1) -> list[Turn]:
    """The configuration is read and set: two URBs from this seqnum on."""
    read = Urb.control(get_descriptor(2, 0, 0, len(CONFIGURATION)).pack())
    return run(first, read, CONFIGURATION) + run(first + 1, Urb.control(set_configuration(1).pack()))


def iso_in(count: int = 3, interval: int = 1) -> Urb:
    """An isochronous IN URB of 64-byte packets."""
    packets = [IsoPacket(64 * n, 64, 0, -18) for n in range(count)]
    return Urb(TransferType.ISOCHRONOUS, ISO_IN, 64 * count, interval=interval, packets=packets)


def iso_in_done(urb: Urb, fill: bytes = b"\x5a") -> Completion:
    """Packet n brings n + 1 bytes."""
    packets = [IsoPacket(p.offset, p.length, n + 1, 0) for n, p in enumerate(urb.packets)]
    size = sum(p.actual_length for p in packets)
    return Completion(0, size, fill * size, start_frame=7, packets=packets)


def iso_out(count: int = 2) -> Urb:
    """An isochronous OUT URB."""
    packets = [IsoPacket(64 * n, 64, 0, -18) for n in range(count)]
    return Urb(TransferType.ISOCHRONOUS, ISO_OUT, 64 * count, bytes(64 * count), interval=1, packets=packets)


def traffic(first: int, rounds: int = 3, size: int = 700) -> list[Turn]:
    """Every kind of transfer, 6 URBs a round; data shows its round, and holds no zeros."""
    turns: list[Turn] = []
    seqnum = first
    for number in range(rounds):
        data = bytes([number % 200 + 1]) * size
        turns += run(seqnum, Urb(TransferType.BULK, BULK_IN, size), data)
        turns += run(seqnum + 1, Urb(TransferType.BULK, BULK_OUT, size, data))
        turns += run(seqnum + 2, Urb(TransferType.INTERRUPT, INTERRUPT_IN, 8, interval=8), data[:5])
        inward, outward = iso_in(), iso_out()
        turns += [submit(seqnum + 3, inward), reply(seqnum + 3, inward, iso_in_done(inward, data[:1]))]
        done = Completion(0, outward.length, packets=[IsoPacket(p.offset, p.length, 64, 0) for p in outward.packets])
        turns += [submit(seqnum + 4, outward), reply(seqnum + 4, outward, done)]
        turns += run(seqnum + 5, Urb(TransferType.BULK, BULK_IN, size), status=-32)
        seqnum += 6
    return turns


def session(rounds: int = 3, size: int = 700, info: DeviceInfo = INFO) -> list[Turn]:
    """A whole one."""
    return imported(info) + described() + traffic(3, rounds, size)
