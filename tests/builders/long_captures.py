"""Long recordings of one kind of transfers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from usbip_capture.records.pcapng import Section
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

START_NS = 1_700_000_000 * 10**9
REQUEST = bytes((0x40, 1))


def keys(number: int) -> list[tuple[Urb, bytes, Completion]]:
    return [(Urb(TransferType.INTERRUPT, 0x81, 8, interval=8), b"", Completion(0, 8, number.to_bytes(8, "little")))]


def serial(number: int) -> list[tuple[Urb, bytes, Completion]]:
    sent = number.to_bytes(8, "little")
    answer = Urb(TransferType.BULK, 0x82, 64)
    return [(Urb(TransferType.BULK, 1, 8, sent), sent, Completion(0, 8)), (answer, b"", Completion(0, 8, sent))]


def requests(number: int) -> list[tuple[Urb, bytes, Completion]]:
    setup = REQUEST + number.to_bytes(4, "little") + bytes(2)
    return [(Urb(TransferType.CONTROL, 0, 0, setup=setup), b"", Completion(0, 0))]


def large(number: int) -> list[tuple[Urb, bytes, Completion]]:
    sent = number.to_bytes(8, "little") * 4096
    answer = Urb(TransferType.BULK, 0x82, 1 << 16)
    return [
        (Urb(TransferType.BULK, 1, 32768, sent), sent, Completion(0, 32768)),
        (answer, b"", Completion(0, 8, sent[:8])),
    ]


Kind = Callable[[int], list[tuple[Urb, bytes, Completion]]]
KINDS: dict[str, Kind] = {"keys": keys, "serial": serial, "requests": requests, "large": large}


def write(path: Path, kind: str, count: int) -> Path:
    section = Section(application="test", hardware="", os="")
    packer = UsbmonPacker(0, 262_144, 1, 2)
    stamp, urbs = START_NS, 0
    with open(path, "wb") as file:
        file.write(section.header())
        file.write(section.interface(name="usbip0", description="USB/IP pi 1-1 1209:0001", snaplen=262_144)[1])
        for number in range(count):
            blocks: list[Buffer] = []
            for urb, sent, completion in KINDS[kind](number):
                urbs += 1
                packer.submit(blocks, stamp, urbs % 16, urb, sent)
                packer.complete(blocks, stamp + 40_000, urbs % 16, urb, completion)
                stamp += 125_000
            file.write(b"".join(blocks))
    return path
