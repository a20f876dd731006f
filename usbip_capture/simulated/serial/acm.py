"""A simulated CDC-ACM port, such as a microcontroller's own.

Ref: CDC 1.2; PSTN devices 1.2, 6.3 and 6.5.4
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.serial.adapter import SimulatedAdapter
from usbip_capture.simulated.serial.exported import Adapter, describe, exported
from usbip_capture.simulated.serial.line import Line, Peer
from usbip_capture.uart.cdc_acm import (
    GET_LINE_CODING,
    LINE_CODING,
    SEND_BREAK,
    SERIAL_STATE,
    SET_CONTROL_LINE_STATE,
    SET_LINE_CODING,
)
from usbip_capture.uart.settings import PARITIES, STOP_BITS, LineErrors
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup

_NOTIFY, _IN, _OUT = 0x81, 0x82, 0x02
_HEAD = bytes([0xA1, SERIAL_STATE, 0, 0, 0, 0, 2, 0])

#: VID, PID and release of what ESP32-C3, S3, C6 and H2 are by themselves.
USB_SERIAL_JTAG = (0x303A, 0x1001, 0x0101)
_ANY = (0x1209, 0x0001, 0x0100)  # pid.codes' identity for tests


def acm(
    peer: Peer,
    busid: str = "1-1",
    identity: tuple[int, int, int] = _ANY,
    serial: str = "ACM0001",
    latency: float = 0.0,
    speed: Speed = Speed.FULL,
) -> Adapter:
    """A CDC-ACM port with `peer` behind it."""
    size = "0002" if speed == Speed.HIGH else "4000"
    interfaces = (
        "08 0b 00 02 02 02 01 00"
        "09 04 00 00 01 02 02 01 00"
        "05 24 00 1001 05 24 01 00 01 04 24 02 06 05 24 06 00 01"
        f"07 05 {_NOTIFY:02x} 03 4000 01"
        "09 04 01 00 02 0a 00 00 00"
        f"07 05 {_OUT:02x} 02 {size} 00 07 05 {_IN:02x} 02 {size} 00"
    )
    names = ("Espressif", "USB JTAG/serial debug unit", serial) if identity == USB_SERIAL_JTAG else (
        "usbip_capture", "Simulated CDC-ACM port", serial
    )  # fmt: skip
    return exported(Acm, describe(*identity, interfaces, names, (0xEF, 2, 1)), [peer], busid, latency, speed)


class Acm(SimulatedAdapter):
    """The port or ports, from one import to its end. There is no CTS in this class."""

    def __init__(self, info: DeviceInfo, descriptors: Descriptors, peers: Sequence[Peer]) -> None:
        self._reported = [0] * len(peers)
        super().__init__(info, descriptors, peers)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        line = next((each for each in self.lines if each.interface == setup.wIndex), None)
        if line is None or setup.bmRequestType not in (0x21, 0xA1):
            return None
        if setup.bRequest == SET_LINE_CODING and len(data) == LINE_CODING.size:
            return self._set_coding(line, data)
        if setup.bRequest == GET_LINE_CODING:
            now = line.settings
            codes = STOP_BITS.index(now.stopbits), PARITIES.index(now.parity), now.bytesize
            return LINE_CODING.pack(now.baudrate, *codes)
        if setup.bRequest == SET_CONTROL_LINE_STATE:
            self.host_drives(line, bool(setup.wValue & 1), bool(setup.wValue & 2))
            return b""
        if setup.bRequest == SEND_BREAK:
            self.host_breaks(line, setup.wValue == 0xFFFF)
            return b""
        return None

    def send(self, line: Line, data: bytes) -> None:
        self.feed(line.in_address, data)

    def modem_changed(self, line: Line) -> None:
        self._notify(line, 0)

    def report(self, line: Line, errors: LineErrors) -> None:
        bits = (errors.breaks, 4), (errors.framing, 16), (errors.parity, 32), (errors.overrun, 64)
        self._notify(line, sum(bit for count, bit in bits if count))

    def _notify(self, line: Line, errors: int) -> None:
        state = line.modem.cd | line.modem.dsr << 1 | line.modem.ri << 3
        if state != self._reported[line.index] or errors:
            self._reported[line.index] = state
            head = _HEAD[:4] + bytes([line.interface]) + _HEAD[5:]
            self.feed(line.notify_address, head + bytes([state | errors, 0]))

    def _set_coding(self, line: Line, data: bytes) -> bytes | None:
        baudrate, stopbits, parity, bytesize = LINE_CODING.unpack(data)
        if stopbits >= len(STOP_BITS) or parity >= len(PARITIES):
            return None
        taken = self.host_sets(
            line, baudrate=baudrate, stopbits=STOP_BITS[stopbits], parity=PARITIES[parity], bytesize=bytesize
        )
        return b"" if taken else None
