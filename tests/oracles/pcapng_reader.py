"""Reading a capture back through python-pcapng: a reader that is not ours, for what we write and what we read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from pcapng import FileScanner
from pcapng.blocks import Block, EnhancedPacket, InterfaceStatistics, SectionHeader
from pcapng.structs import read_block_data

from usbip_capture.errors import CaptureError
from usbip_capture.records.pcapng import LINKTYPE_USB_LINUX_MMAPPED, InterfaceDescription
from usbip_capture.records.usbmon import HEADER_SIZE, UsbmonRecord

_MICROSECONDS = 6


@dataclass(slots=True)
class CapturedInterface:
    """An interface of a capture. The counts are those of its statistics block, None before or without one."""

    name: str
    description: str
    link_type: int
    speed: int
    snaplen: int
    ticks_per_second: int
    received: int | None = None
    dropped: int | None = None
    comments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CapturedRecord:
    """A packet of a capture. `usb` is its usbmon event; None of other link types and of less than a header."""

    interface: CapturedInterface
    timestamp_ns: int
    original_length: int
    data: bytes
    comments: list[str]
    usb: UsbmonRecord | None


Item: TypeAlias = "CapturedInterface | CapturedRecord"


def read_capture(path: str | os.PathLike[str]) -> Iterator[CapturedRecord]:
    """The packets of a pcapng file, in its order. Raises CaptureError where it cannot be read (any further)."""
    return (item for item in read_items(path) if isinstance(item, CapturedRecord))


def read_items(path: str | os.PathLike[str]) -> Iterator[Item]:
    """Interfaces and packets in the order of the file; an interface gets its counts when the file has come to them."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            yield from _items(Scanner(_BoundedStream(file)))
    except OSError as error:
        raise CaptureError(f"the capture {name} cannot be read: {error.strerror or error}") from error
    except CaptureError:
        raise
    except Exception as error:  # the library lets everything through that bad bytes run into
        raise CaptureError(f"{name} is not a pcapng capture, or it is damaged: {error}") from error


class Scanner(FileScanner):
    """python-pcapng's reader, with our interface description. Bad bytes raise whatever they run into."""

    __slots__: list[str] = []

    def _read_block(self, block_type: int) -> Block:
        if block_type != InterfaceDescription.magic_number:
            return super()._read_block(block_type)
        data = read_block_data(self.stream, self.endianness)
        return self.current_section.new_member(InterfaceDescription, raw=data)


def _items(scanner: Scanner) -> Iterator[Item]:
    interfaces: list[CapturedInterface] = []
    for block in scanner:
        if isinstance(block, SectionHeader):
            interfaces = []
        elif isinstance(block, InterfaceDescription):
            interfaces.append(_interface(block))
            yield interfaces[-1]
        elif isinstance(block, EnhancedPacket):
            yield _record(block, interfaces[block.interface_id])
        elif isinstance(block, InterfaceStatistics):
            interface = interfaces[block.interface_id]
            interface.received = block.options.get("isb_ifrecv")
            interface.dropped = block.options.get("isb_ifdrop")
            interface.comments += block.options.get_all("opt_comment")


def _interface(block: InterfaceDescription) -> CapturedInterface:
    options = block.options
    (resolution,) = options.get("if_tsresol", bytes([_MICROSECONDS]))
    return CapturedInterface(
        name=options.get("if_name", ""),
        description=options.get("if_description", ""),
        link_type=block.link_type,
        speed=options.get("if_speed", 0),
        snaplen=block.snaplen,
        ticks_per_second=2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution,
    )


def _record(block: EnhancedPacket, interface: CapturedInterface) -> CapturedRecord:
    ticks = block.timestamp_high << 32 | block.timestamp_low
    data = block.packet_data
    usb = interface.link_type == LINKTYPE_USB_LINUX_MMAPPED and len(data) >= HEADER_SIZE
    return CapturedRecord(
        interface=interface,
        timestamp_ns=ticks * 1_000_000_000 // interface.ticks_per_second,
        original_length=block.packet_len,
        data=data,
        comments=block.options.get_all("opt_comment"),
        usb=UsbmonRecord.parse(data) if usb else None,
    )


class _BoundedStream:
    """A file that is never asked for more than it has: the library believes every length."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0

    def read(self, size: int, /) -> bytes:
        if size < 0:
            raise ValueError("a block is shorter than its own head")
        data = self._file.read(min(size, self._size - self._at))
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at
