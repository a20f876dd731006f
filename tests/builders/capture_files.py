"""Capture files made by hand, of every form that others write, so that readers can be shown them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from struct import pack
from typing import NamedTuple

from usbip_capture.recordings.link_types import USB_LINUX, USB_LINUX_MMAPPED, USBPCAP
from usbip_capture.records.usbmon import COMPLETE, HEADER_SIZE, ISO_DESCRIPTOR_SIZE, SUBMIT, UsbmonRecord
from usbip_capture.usb.urb import DIR_IN, TransferType

GOLDEN = Path(__file__).parents[1] / "golden"
USBD_STALL = 0xC0000004
USBD_CANCELLED = 0xC0010000
_USBD = {0: 0, -32: USBD_STALL, -2: USBD_CANCELLED, -104: USBD_CANCELLED}


class Shown(NamedTuple):
    """A packet: time stamp in ns and bytes."""

    timestamp_ns: int
    data: bytes


def classic(packets: Iterable[Shown], link_type: int, order: str = "<", tick_ns: int = 1000) -> bytes:
    """A classic pcap file."""
    magic = {1000: 0xA1B2C3D4, 1: 0xA1B23C4D}[tick_ns]
    parts = [pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)]
    for stamp, data in packets:
        seconds, rest = divmod(stamp, 10**9)
        parts += [pack(order + "IIII", seconds, rest // tick_ns, len(data), len(data)), data]
    return b"".join(parts)


def pcapng(
    packets: Iterable[Shown], link_type: int, order: str = "<", options: bytes = b"", per_second: int = 10**6
) -> bytes:
    """A pcapng file of one section and interface."""
    parts = [_block(order, 0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))]
    parts.append(_block(order, 1, pack(order + "HHI", link_type, 0, 0) + options))
    for stamp, data in packets:
        ticks = stamp * per_second // 10**9
        head = pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        parts.append(_block(order, 6, head + data))
    return b"".join(parts)


def option(order: str, code: int, value: bytes) -> bytes:
    """One option of a block."""
    return pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = pack(order + "I", len(body) + 12)
    return b"".join([pack(order + "I", kind), size, body, size])


def read_classic(raw: bytes) -> list[Shown]:
    """The packets of a little-endian file with microseconds."""
    found, at = [], 24
    while at < len(raw):
        seconds, micro, captured, _ = (int.from_bytes(raw[at + n : at + n + 4], "little") for n in (0, 4, 8, 12))
        found.append(Shown(seconds * 10**9 + micro * 1000, raw[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return found


def big_endian(packet: bytes) -> bytes:
    """A usbmon event as a big-endian host writes it."""
    sizes = [8, 1, 1, 1, 1, 2, 1, 1, 8, 4, 4, 4, 4, -8, 4, 4, 4, 4]
    parts, at = [], 0
    count = int.from_bytes(packet[60:64], "little")
    for size in [*sizes, *[4] * (4 * count)]:
        part = packet[at : at + abs(size)]
        # What lies where others have their setup are two numbers in isochronous events; nobody reads them here.
        parts.append(part if size < 0 else part[::-1])
        at += abs(size)
    return b"".join([*parts, packet[at:]])


def without_padding(packet: bytes) -> bytes:
    """A usbmon event as link type 189 has it: a header of 48 bytes, no isochronous descriptors."""
    count = int.from_bytes(packet[60:64], "little")
    return packet[:48] + packet[HEADER_SIZE + count * ISO_DESCRIPTOR_SIZE :]


def usbpcap(packet: bytes) -> bytes:
    """A usbmon event of a transfer other than isochronous as USBPcap shows it on Windows."""
    event = UsbmonRecord.parse(packet)
    back = event.type != SUBMIT
    control = event.xfer_type == TransferType.CONTROL
    data = event.setup + event.data if control and not back else event.data
    stage = bytes([3 if back else 0]) if control else b""
    status = _USBD.get(event.status, 0xC0000011) if back else 0
    endpoint = event.epnum & 0x0F if control else event.epnum
    head = pack("<HQIHBHHBBI", 27 + len(stage), event.id, status, 9, back, event.busnum, event.devnum, endpoint,
                event.xfer_type, len(data))  # fmt: skip
    return head + stage + data


def usbpcap_stages(packet: bytes) -> list[bytes]:
    """A usbmon event of a control transfer as old versions of USBPcap show it: each stage a packet."""
    event = UsbmonRecord.parse(packet)
    inward = event.epnum & DIR_IN

    def stage(number: int, back: int, data: bytes) -> bytes:
        status = _USBD.get(event.status, 0xC0000011) if back else 0
        head = pack("<HQIHBHHBBI", 28, event.id, status, 9, back, event.busnum, event.devnum, inward, 2, len(data))
        return head + bytes([number]) + data

    if event.type == COMPLETE:
        reported = [stage(1, 1, event.data)] if inward and event.data else []
        return [*reported, stage(2, 1, b"")]
    return [stage(0, 0, event.setup), *([stage(1, 0, event.data)] if event.data else [])]


def each(change: Callable[[bytes], bytes], packets: Iterable[Shown]) -> Iterator[Shown]:
    """All of them, changed."""
    return (Shown(stamp, change(data)) for stamp, data in packets)


def stages(packets: Iterable[Shown]) -> Iterator[Shown]:
    """Control transfers as old versions of USBPcap show them."""
    for stamp, data in packets:
        for one in usbpcap_stages(data) if data[9] == 2 else [usbpcap(data)]:
            yield Shown(stamp, one)


def only_sent(packets: Iterable[Shown]) -> Iterator[Shown]:
    """As before USBPcap 1.2: what is sent is recorded when it is submitted only."""
    for stamp, data in packets:
        if data[9] == 2 or data[10] & 0x80 or data[8] == ord("S"):
            yield Shown(stamp, data)


#: Of a session of usbmon, the same in other forms.
FORMS: dict[str, Callable[[list[Shown]], bytes]] = {
    "220, big-endian": lambda found: classic(each(big_endian, found), USB_LINUX_MMAPPED, ">"),
    "220, pcapng": lambda found: pcapng(found, USB_LINUX_MMAPPED),
    "220, nanoseconds, gzip": lambda found: gzip.compress(classic(found, USB_LINUX_MMAPPED, tick_ns=1)),
    "189": lambda found: classic(each(without_padding, found), USB_LINUX),
    "189, big-endian": lambda found: classic(each(lambda d: without_padding(big_endian(d)), found), USB_LINUX, ">"),
    "249": lambda found: pcapng(each(usbpcap, found), USBPCAP),
    "249, only submits of OUT": lambda found: pcapng(stages(only_sent(found)), USBPCAP),
    "249, stages": lambda found: pcapng(stages(found), USBPCAP),
}


def packets_of(name: str) -> list[Shown]:
    """A session of a real kernel, as usbmon of the server saw it."""
    return read_classic((GOLDEN / name / "server-usbmon.pcap").read_bytes())


def snapped(packets: Iterable[Shown], length: int) -> bytes:
    """As a snapshot length leaves them: the packet's own length is kept."""
    raw = classic(packets, USB_LINUX_MMAPPED)
    parts, at = [raw[:24]], 24
    while at < len(raw):
        size = int.from_bytes(raw[at + 8 : at + 12], "little")
        kept = min(size, length)
        parts += [raw[at : at + 8], pack("<II", kept, size), raw[at + 16 : at + 16 + kept]]
        at += 16 + size
    return b"".join(parts)
