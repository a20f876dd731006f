"""How a serial line is set, the modem lines that can be read, and what went wrong on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from usbip_capture.errors import LocalProtocolError

BYTE_SIZES = (5, 6, 7, 8)
PARITIES = ("N", "O", "E", "M", "S")  # none, odd, even, mark, space: in the order of every chip's numbers
STOP_BITS = (1, 1.5, 2)
XON, XOFF = 0x11, 0x13
MAX_BAUDRATE = 0xFFFFFFFF  # of the four bytes that adapters have for it
_TOLERANCE = 0.03  # half of what a receiver of ten-bit frames stands


@dataclass(slots=True, frozen=True)
class LineSettings:
    """Values as pyserial spells them. baudrate: bits per second; low_latency: short answers are not held back.

    Raises LocalProtocolError for what no UART does; what one chip cannot do, its driver reports.
    """

    baudrate: int = 9600
    bytesize: int = 8
    parity: str = "N"
    stopbits: float = 1
    rtscts: bool = False
    dsrdtr: bool = False
    xonxoff: bool = False
    low_latency: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.baudrate <= MAX_BAUDRATE:
            raise LocalProtocolError(f"{self.baudrate} baud is not a speed: give a number from 1 to {MAX_BAUDRATE}")
        for name, value, allowed in (
            ("byte size", self.bytesize, BYTE_SIZES),
            ("parity", self.parity, PARITIES),
            ("stop bits", self.stopbits, STOP_BITS),
        ):
            if value not in allowed:
                raise LocalProtocolError(f"{name} {value!r} is none of {', '.join(map(str, allowed))}")

    @property
    def frame(self) -> tuple[int, str, float]:
        """Byte size, parity and stop bits: what most chips set with one request."""
        return self.bytesize, self.parity, self.stopbits

    @property
    def handshake(self) -> tuple[bool, bool, bool]:
        """rtscts, dsrdtr, xonxoff."""
        return self.rtscts, self.dsrdtr, self.xonxoff


class ModemLines(NamedTuple):
    """The lines that the other side drives; True is asserted."""

    cts: bool = False
    dsr: bool = False
    ri: bool = False
    cd: bool = False


@dataclass(slots=True)
class LineErrors:
    """How often the chip has reported each since the port was opened."""

    overrun: int = 0
    parity: int = 0
    framing: int = 0
    breaks: int = 0


def check_rate(chip: str, asked: int, actual: float) -> None:
    """Raise LocalProtocolError when a chip's nearest speed is too far away for both ends to understand each other."""
    if abs(actual - asked) > asked * _TOLERANCE:
        raise LocalProtocolError(f"{chip} has {actual:.0f} baud at best instead of {asked}; ask for a speed it has")
