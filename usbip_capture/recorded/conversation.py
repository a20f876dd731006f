"""The conversations in a capture: for each device, what was asked of it and what came, in order and with times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct

from usbip_capture.usb.status import GONE, UNLINKED
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, IsoPacket, TransferType

_CONTROL = TransferType.CONTROL


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
        """Whether it is not the device that has ended it: the host has, or the device had left, or the connection."""
        return not self.answered or self.status in UNLINKED or self.status in GONE

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

    strays: completions without a submit, as at the beginning of a capture that began later. intervals: of interrupt
    endpoints, in frames or microframes, where the capture has them.
    """

    bus: int
    number: int
    busid: str = ""
    vid_pid: tuple[int, int] | None = None
    exchanges: Sequence[Exchange] = ()
    strays: int = 0
    intervals: dict[int, int] = field(default_factory=dict)
