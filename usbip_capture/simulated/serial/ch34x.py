"""A simulated CH340 or CH341: registers, and notifications of its modem lines.

Ref: as `usbip_capture.uart.ch34x`
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.serial.adapter import SimulatedAdapter
from usbip_capture.simulated.serial.exported import Adapter, describe, exported
from usbip_capture.simulated.serial.line import Line, Peer
from usbip_capture.uart import ch34x as chip
from usbip_capture.uart.settings import LineErrors
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup

_NOTIFY, _IN, _OUT = 0x81, 0x82, 0x02
_BREAK, _PRESCALER, _DIVISOR, _LCR, _FLOW, _STATUS = 0x05, 0x12, 0x13, 0x18, 0x27, 0x06
_LCR_TX, _NO_BREAK = 0x40, 0x01
_PARITIES = {0: "N", 1: "O", 3: "E", 5: "M", 7: "S"}  # line control register, bits 5..3


def ch34x(peer: Peer, busid: str = "1-1", version: int = 0x31, can_break: bool = True, latency: float = 0.0) -> Adapter:
    """A CH340 with `peer` behind it. They have no serial number."""
    interfaces = (
        "09 04 00 00 03 ff 01 02 00"
        f"07 05 {_IN:02x} 02 2000 00 07 05 {_OUT:02x} 02 2000 00 07 05 {_NOTIFY:02x} 03 0800 01"
    )
    described = describe(0x1A86, 0x7523, 0x0264, interfaces, ("", "USB Serial", ""), (0xFF, 0, 0))
    return exported(partial(SimulatedCh34x, version, can_break), described, [peer], busid, latency)


class SimulatedCh34x(SimulatedAdapter):
    """The chip, from one import to its end."""

    in_chip = frozenset({"rtscts"})

    def __init__(
        self, version: int, can_break: bool, info: DeviceInfo, descriptors: Descriptors, peers: Sequence[Peer]
    ) -> None:
        self._version = version
        self._can_break = can_break
        self._registers = {_BREAK: _NO_BREAK, _LCR: 0xC3}
        super().__init__(info, descriptors, peers)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        line = self.lines[0]  # more interfaces than the chip has are dead
        kind, request = setup.bmRequestType, setup.bRequest
        if kind == 0xC0 and request == chip.READ_VERSION:
            return bytes([self._version, 0])
        if kind == 0xC0 and request == chip.READ_REG:
            names = setup.wValue & 0xFF, setup.wValue >> 8
            if _BREAK in names and not self._can_break:
                return None
            return bytes(self._register(line, name) for name in names)
        if kind != 0x40:
            return None
        if request == chip.WRITE_REG:
            self._registers[setup.wValue & 0xFF] = setup.wIndex & 0xFF
            self._registers[setup.wValue >> 8] = setup.wIndex >> 8
            return b"" if self._written(line) else None
        if request == chip.MODEM_CTRL:
            self.host_drives(line, not setup.wValue & 0x20, not setup.wValue & 0x40)
            return b""
        return b"" if request == chip.SERIAL_INIT else None

    def send(self, line: Line, data: bytes) -> None:
        self.feed(line.in_address, data)

    def modem_changed(self, line: Line) -> None:
        super().modem_changed(line)
        self._notify(line, 0x08)

    def report(self, line: Line, errors: LineErrors) -> None:
        for count, kind in (errors.overrun, 0x02), (errors.parity, 0x04), (errors.framing, 0x44):
            if count:
                self._notify(line, kind)

    def _notify(self, line: Line, kind: int) -> None:
        self.feed(line.notify_address, bytes([kind, 0x7D, self._register(line, _STATUS) | 0x90, 0xEE]))

    def _register(self, line: Line, name: int) -> int:
        if name == _STATUS:
            modem = line.modem
            return ~(modem.cts | modem.dsr << 1 | modem.ri << 2 | modem.cd << 3) & 0x0F
        return self._registers.get(name, 0)

    def _written(self, line: Line) -> bool:
        """The registers are now the line's setting."""
        registers = self._registers
        control, prescaler = registers[_LCR], registers.get(_PRESCALER, 0)
        divisor = 0x100 - registers.get(_DIVISOR, 0)
        parity = _PARITIES.get(control >> 3 & 7)
        if parity is None:
            return False
        changes: dict[str, object] = {
            "bytesize": 5 + (control & 3),
            "parity": parity,
            "stopbits": 2 if control & 4 else 1,
            "rtscts": bool(registers.get(_FLOW, 0) & 1),
        }
        if _DIVISOR in registers:
            clock = 48_000_000 / (1 << 12 - 3 * (prescaler & 3) - (prescaler >> 2 & 1))
            changes["baudrate"] = round(clock / divisor)
        self.host_breaks(line, not (registers[_BREAK] & _NO_BREAK and control & _LCR_TX))
        return self.host_sets(line, **changes)
