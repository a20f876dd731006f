"""The USB request block: what is asked of a device, and what came of it.

Ref: Linux Documentation/driver-api/usb/URB.rst; include/uapi/linux/usbip.h
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"

DIR_IN: Final = 0x80
NO_SETUP: Final = bytes(8)


class TransferType(IntEnum):
    """Numbered as usbmon does. Ref: Linux Documentation/usb/usbmon.rst, xfer_type."""

    ISOCHRONOUS = 0
    INTERRUPT = 1
    CONTROL = 2
    BULK = 3


# transfer_flags, the same numbers in the kernel's URB_* and USBIP_URB_*.
SHORT_NOT_OK: Final = 0x0001
ISO_ASAP = 0x0002
NO_TRANSFER_DMA_MAP = 0x0004
ZERO_PACKET = 0x0040
NO_INTERRUPT = 0x0080
FLAG_DIR_IN: Final = 0x0200

_CONTROL: Final = TransferType.CONTROL


class IsoPacket(NamedTuple):
    """One isochronous packet: its slot in the buffer, what was moved, and how that ended (0 or -errno)."""

    offset: int
    length: int
    actual_length: int = 0
    status: int = 0


class Urb:
    """One request, never changed after it was made.

    endpoint: bEndpointAddress, bit 7 set for IN; for control 0x80 or 0x00 by the direction of the data stage.
    length: bytes of the transfer buffer; for OUT that of `data`.
    setup: 8 bytes, for control only.
    interval: as the wire has it, in frames (1 ms) up to full speed, in microframes above.
    packets: isochronous only.
    """

    __slots__ = (
        "data",
        "endpoint",
        "flags",
        "interval",
        "length",
        "packets",
        "setup",
        "start_frame",
        "transfer_type",
    )

    def __init__(
        self,
        transfer_type: TransferType,
        endpoint: int,
        length: int,
        data: Buffer = b"",
        setup: bytes = NO_SETUP,
        flags: int = 0,
        interval: int = 0,
        start_frame: int = 0,
        packets: Sequence[IsoPacket] = (),
    ) -> None:
        self.transfer_type = transfer_type
        self.endpoint = endpoint
        self.length = length
        self.data = data
        self.setup = setup
        self.flags = flags
        self.interval = interval
        self.start_frame = start_frame
        self.packets = packets

    @staticmethod
    def control(setup: bytes, data: Buffer = b"") -> Urb:
        """A request on endpoint 0; `data` is that of an OUT data stage, wLength long."""
        length = setup[6] | setup[7] << 8
        if setup[0] & DIR_IN and length:
            return Urb(_CONTROL, DIR_IN, length, data, setup, FLAG_DIR_IN)
        return Urb(_CONTROL, 0, length, data, setup)

    def __repr__(self) -> str:
        return f"<Urb {self.transfer_type.name} ep={self.endpoint:#04x} length={self.length}>"


class Completion:
    """What came of a URB, never changed after it was made.

    status: 0 or -errno in Linux numbers; isochronous: 0, errors are in `packets`.
    actual_length: bytes moved, for OUT too.
    data: what an IN transfer brought; isochronous: the packets without gaps (`spread` puts them at their offsets).
    """

    __slots__ = ("actual_length", "data", "error_count", "packets", "start_frame", "status")

    def __init__(
        self,
        status: int,
        actual_length: int = 0,
        data: Buffer = b"",
        start_frame: int = 0,
        error_count: int = 0,
        packets: Sequence[IsoPacket] = (),
    ) -> None:
        self.status = status
        self.actual_length = actual_length
        self.data = data
        self.start_frame = start_frame
        self.error_count = error_count
        self.packets = packets

    def __repr__(self) -> str:
        return f"<Completion status={self.status} actual_length={self.actual_length}>"


def spread(packets: Sequence[IsoPacket], data: Buffer) -> bytes:
    """Packed isochronous IN data put back at the packets' offsets, gaps zero, up to the last byte received."""
    size = max((p.offset + p.actual_length for p in packets if p.actual_length), default=0)
    out, at = bytearray(size), 0
    for packet in packets:
        out[packet.offset : packet.offset + packet.actual_length] = data[at : at + packet.actual_length]
        at += packet.actual_length
    return bytes(out)
