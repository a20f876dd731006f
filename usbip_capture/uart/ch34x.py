"""WCH CH340 and CH341. (CH9102, CH342, CH343 and CH344 are CDC-ACM devices, see `cdc_acm`.)

There is no public register description. Ref: Linux drivers/usb/serial/ch341.c and WCH's ch341ser_linux, where the
registers are named; https://github.com/nospam2000/ch341-baudrate-calculation, where the speeds were measured
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.driver import Driver, Pipes, Request
from usbip_capture.uart.settings import LineSettings, ModemLines, check_rate
from usbip_capture.usb.setup import Setup

READ_VERSION, READ_REG, WRITE_REG, SERIAL_INIT, MODEM_CTRL = 0x5F, 0x95, 0x9A, 0xA1, 0xA4
_OUT, _IN = 0x40, 0xC0

# Registers; a request names two of them, the second in the upper byte.
_BREAK, _STATUS, _PRESCALER_DIVISOR, _LCR, _LCR2, _FLOW = 0x05, 0x0706, 0x1312, 0x18, 0x25, 0x2727
_LCR_BOTH = _LCR2 << 8 | _LCR
_BREAK_AND_LCR = _LCR << 8 | _BREAK
_NO_BREAK = 0x01  # of the break register
_LCR_RX, _LCR_TX, _LCR_STOP_2 = 0x80, 0x40, 0x04
_LCR_PARITY = {"N": 0x00, "O": 0x08, "E": 0x18, "M": 0x28, "S": 0x38}
_DTR, _RTS = 0x20, 0x40
_CTS, _DSR, _RI, _CD = 1, 2, 4, 8
# First byte of a notification
_LINES_CHANGED, _OVERRUN, _PARITY, _FRAMING = 0x08, 0x02, 0x04, 0x44

_CLOCK = 48_000_000
_AT_ONCE = 0x80  # of the prescaler: do not wait for a packet to be full
_LAST_INVERTED = 0x27  # version up to which that bit must be clear
_FIRST_WITH_LCR = 0x30  # version from which the line control register is there


class Ch34x(Driver):
    """Modem lines come by notification, inverted. Chips that stall reads of the break register have no break."""

    name = "CH34x"

    def __init__(self, pipes: Pipes) -> None:
        super().__init__(pipes)
        self._version = _FIRST_WITH_LCR
        self._break: int | None = None
        self._line_control = _LCR_RX | _LCR_TX | 3

    def identify(self) -> Sequence[Request]:
        break_register = Setup(_IN, READ_REG, _BREAK, 0, 2)
        return [Request(Setup(_IN, READ_VERSION, 0, 0, 2)), Request(break_register, optional=True)]

    def open(self) -> Sequence[Request]:
        return [*super().open(), Request(Setup(_OUT, SERIAL_INIT, 0, 0, 0))]

    def apply(self, old: LineSettings | None, new: LineSettings) -> Sequence[Request]:
        divisor = baud_divisor(new.baudrate, limited=self._break is None)
        if self._version < _FIRST_WITH_LCR and new.frame != (8, "N", 1):
            raise LocalProtocolError(f"this old CH34x (version {self._version:#04x}) has 8 data bits, no parity only")
        if new.stopbits == 1.5:
            raise LocalProtocolError("CH34x chips have 1 or 2 stop bits, not 1.5")
        requests = []
        if old is None or old.baudrate != new.baudrate:
            at_once = _AT_ONCE if self._version > _LAST_INVERTED else 0
            requests.append(_write(_PRESCALER_DIVISOR, divisor | at_once))
        if (old is None or old.frame != new.frame) and self._version >= _FIRST_WITH_LCR:
            self._line_control = (
                _LCR_RX | _LCR_TX | _LCR_PARITY[new.parity] | (new.stopbits == 2) * _LCR_STOP_2 | new.bytesize - 5
            )
            requests.append(_write(_LCR_BOTH, self._line_control))
        if old is None or old.rtscts != new.rtscts:
            self.in_chip = frozenset({"rtscts"} if new.rtscts else ())
            requests.append(_write(_FLOW, 0x0101 if new.rtscts else 0))
        return requests

    def set_lines(self, dtr: bool, rts: bool) -> Sequence[Request]:
        return [Request(Setup(_OUT, MODEM_CTRL, ~(dtr * _DTR | rts * _RTS) & 0xFFFF, 0, 0))]

    def set_break(self, on: bool) -> Sequence[Request]:
        if self._break is None:
            raise LocalProtocolError("this CH34x cannot send a break")
        if on:
            value = self._break & ~_NO_BREAK | (self._line_control & ~_LCR_TX) << 8
        else:
            value = self._break | _NO_BREAK | self._line_control << 8
        return [_write(_BREAK_AND_LCR, value)]

    def poll(self) -> Sequence[Request]:
        return [Request(Setup(_IN, READ_REG, _STATUS, 0, 2))]

    def answered(self, request: Request, data: bytes) -> None:
        kind, value = request.setup.bRequest, request.setup.wValue
        if kind == READ_VERSION and data:
            self._version = data[0]
        elif kind == READ_REG and value == _BREAK and data:
            self._break = data[0]
        elif kind == READ_REG and value == _STATUS and data:
            self._lines(data[0])

    def notified(self, data: bytes) -> None:
        if len(data) < 4:
            return
        kind = data[0]
        if kind & _LINES_CHANGED:
            self._lines(data[2])
        self.errors.overrun += bool(kind & _OVERRUN)
        self.errors.framing += kind & _FRAMING == _FRAMING
        self.errors.parity += kind & _FRAMING == _PARITY

    def _lines(self, inverted: int) -> None:
        self.lines = ModemLines(*(not inverted & bit for bit in (_CTS, _DSR, _RI, _CD)))


def _write(registers: int, values: int) -> Request:
    return Request(Setup(_OUT, WRITE_REG, registers, values, 0))


def baud_divisor(baudrate: int, limited: bool) -> int:
    """Values of the prescaler (lower byte) and divisor registers for the nearest speed that the chip has.

    The speed is 48 MHz / (2 ** (12 - 3 * ps - fact) * divisor) with ps of 0..3 and fact of 0..1. limited: some chips
    have fact 1 with ps 3 only. Raises LocalProtocolError where nothing is near.
    """
    choices = []
    for fact, ps in ((fact, ps) for fact in (0, 1) for ps in (3, 2, 1, 0)):
        if fact and limited and ps < 3:
            continue
        clock = _CLOCK / (1 << 12 - 3 * ps - fact)
        divisor = min(max(round(clock / baudrate), 9 if fact else 2), 256)
        choices.append((clock / divisor, fact, ps, divisor))
    # Of equals the first: without fact the receiver stands more.
    actual, fact, ps, divisor = min(choices, key=lambda choice: abs(choice[0] - baudrate))
    check_rate("the CH34x", baudrate, actual)
    return (0x100 - divisor) << 8 | fact << 2 | ps
