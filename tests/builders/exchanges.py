"""Conversations with a device, made by hand."""

from __future__ import annotations

import struct

from usbip_capture.recorded.conversation import Exchange, RecordedDevice
from usbip_capture.recorded.descriptors import descriptors_of, info_of
from usbip_capture.replayed.recording import Recording
from usbip_capture.usb.urb import TransferType

BULK_OUT, BULK_IN = 0x02, 0x81
BLOCK = 512
SECOND = 1_000_000_000


class Conversation:
    """exchanges: one after another, a millisecond each."""

    def __init__(self, vid_pid: tuple[int, int] = (0x1209, 1)) -> None:
        self._vid_pid = vid_pid
        self.exchanges: list[Exchange] = []
        self.tag = 0  # of the last command
        self.now = 0

    def add(self, exchange: Exchange) -> Exchange:
        exchange.number = 2 * len(self.exchanges) + 1
        exchange.answered = exchange.number + 1
        exchange.time_ns, exchange.end_ns = self.now, self.now + 500_000
        self.now += 1_000_000
        self.exchanges.append(exchange)
        return exchange

    def control(self, setup: str, sent: bytes = b"", data: bytes = b"", status: int = 0) -> Exchange:
        """setup: in hexadecimal."""
        raw = bytes.fromhex(setup)
        length = int.from_bytes(raw[6:8], "little")
        kind = TransferType.CONTROL
        return self.add(
            Exchange(0, 0, kind, raw[0] & 0x80, raw, sent, length, status=status, moved=len(data), data=data)
        )

    def out(self, data: bytes, status: int = 0) -> Exchange:
        moved = 0 if status else len(data)
        return self.add(
            Exchange(0, 0, TransferType.BULK, BULK_OUT, sent=data, length=len(data), status=status, moved=moved)
        )

    def inward(self, data: bytes, length: int = BLOCK, status: int = 0) -> Exchange:
        return self.add(
            Exchange(0, 0, TransferType.BULK, BULK_IN, length=length, status=status, moved=len(data), data=data)
        )

    def read(self, first: int, content: bytes) -> None:
        """READ (10) of a disk."""
        self.tag += 1
        self.out(command(self.tag, 0x28, first, len(content)))
        self.inward(content, len(content))
        self.inward(success(self.tag), 13)

    def write(self, first: int, content: bytes) -> None:
        """WRITE (10)."""
        self.tag += 1
        self.out(command(self.tag, 0x2A, first, len(content)))
        self.out(content)
        self.inward(success(self.tag), 13)

    def recording(self) -> Recording:
        """As one that was read from a file."""
        self.exchanges.insert(0, self.control("00 09 0100 0000 0000"))
        self.exchanges.pop()
        self.exchanges[0].time_ns = -1_000_000
        device = RecordedDevice(1, 2, "1-1", self._vid_pid, self.exchanges)
        known = descriptors_of(device)
        return Recording("made", info_of(device, known, "1-1"), known, self.exchanges, [])


def command(tag: int, code: int, first: int, length: int) -> bytes:
    """A command block wrapper. Ref: Bulk-Only Transport 1.0, table 5.1"""
    block = struct.pack(">BBIBHB6x", code, 0, first, 0, length // BLOCK, 0)
    return struct.pack("<4sIIBBB16s", b"USBC", tag, length, 0x80 if code == 0x28 else 0, 0, 10, block)


def success(tag: int) -> bytes:
    """A command status wrapper."""
    return struct.pack("<4sIIB", b"USBS", tag, 0, 0)


def block(number: int) -> bytes:
    """What a disk has in a block."""
    return (b"block %06d " % number).ljust(BLOCK, b".")
