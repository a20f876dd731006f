"""CDC-ACM: the serial port of the USB class, as in microcontrollers with USB of their own.

Ref: CDC 1.2; PSTN devices 1.2, 6.3 (requests), 6.5 (notifications)
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from usbip_capture.uart.driver import Driver, Pipes, Request
from usbip_capture.uart.settings import PARITIES, STOP_BITS, LineSettings, ModemLines
from usbip_capture.usb.setup import Setup

SET_LINE_CODING, GET_LINE_CODING, SET_CONTROL_LINE_STATE, SEND_BREAK = 0x20, 0x21, 0x22, 0x23
SERIAL_STATE = 0x20
LINE_CODING = Struct("<IBBB")  # dwDTERate, bCharFormat, bParityType, bDataBits
_TO_INTERFACE = 0x21
_NOTIFICATION = 0xA1
_HEAD = 8
_LONGEST = 64  # bytes of a notification that are believed

# bmCapabilities of the ACM functional descriptor, table 4
_HAS_LINES, _HAS_BREAK = 0x02, 0x04
# Control line state, table 18; serial state, table 31
_DTR, _RTS = 1, 2
_DCD, _DSR, _BREAK, _RING, _FRAMING, _PARITY, _OVERRUN = (1 << bit for bit in range(7))


class CdcAcm(Driver):
    """The class has no CTS: it is always asserted, as in Linux. Flow control is the device's own affair."""

    name = "CDC-ACM"

    def __init__(self, pipes: Pipes) -> None:
        super().__init__(pipes)
        self.lines = ModemLines(cts=True)
        self._pending = b""

    def apply(self, old: LineSettings | None, new: LineSettings) -> Sequence[Request]:
        if old is not None and (old.baudrate, old.frame) == (new.baudrate, new.frame):
            return []
        coding = LINE_CODING.pack(new.baudrate, STOP_BITS.index(new.stopbits), PARITIES.index(new.parity), new.bytesize)
        return [self._request(SET_LINE_CODING, 0, coding, _HAS_LINES)]

    def set_lines(self, dtr: bool, rts: bool) -> Sequence[Request]:
        return [self._request(SET_CONTROL_LINE_STATE, dtr * _DTR | rts * _RTS, b"", _HAS_LINES)]

    def set_break(self, on: bool) -> Sequence[Request]:
        return [self._request(SEND_BREAK, 0xFFFF if on else 0, b"", _HAS_BREAK)]

    def notified(self, data: bytes) -> None:
        # A notification that is longer than a packet comes in pieces.
        self._pending += data
        while len(self._pending) >= _HEAD:
            length = int.from_bytes(self._pending[6:8], "little")
            if self._pending[0] != _NOTIFICATION or length > _LONGEST:
                self._pending = b""
                return
            if len(self._pending) < _HEAD + length:
                return
            whole, self._pending = self._pending[: _HEAD + length], self._pending[_HEAD + length :]
            if whole[1] == SERIAL_STATE and length >= 2:
                self._state(int.from_bytes(whole[8:10], "little"))

    def _state(self, state: int) -> None:
        self.lines = ModemLines(True, bool(state & _DSR), bool(state & _RING), bool(state & _DCD))
        self.errors.breaks += bool(state & _BREAK)
        self.errors.framing += bool(state & _FRAMING)
        self.errors.parity += bool(state & _PARITY)
        self.errors.overrun += bool(state & _OVERRUN)

    def _request(self, request: int, value: int, data: bytes, capability: int) -> Request:
        setup = Setup(_TO_INTERFACE, request, value, self.pipes.interface, len(data))
        return Request(setup, data, optional=not self.pipes.capabilities & capability)
