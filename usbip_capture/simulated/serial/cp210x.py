"""A simulated CP210x: each of the family, with its own table or range of speeds, one to four lines.

Ref: as `usbip_capture.uart.cp210x`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.serial.adapter import SimulatedAdapter
from usbip_capture.simulated.serial.exported import Adapter, describe, exported, vendor_interface
from usbip_capture.simulated.serial.line import Line, Peer
from usbip_capture.uart import cp210x as chip
from usbip_capture.uart.settings import PARITIES, STOP_BITS, LineErrors
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup

#: Part number, PID, lines and product name of what can be simulated.
CHIPS = {
    "CP2102": (0x02, 0xEA60, 1, "CP2102 USB to UART Bridge Controller"),
    "CP2104": (0x04, 0xEA60, 1, "CP2104 USB to UART Bridge Controller"),
    "CP2102N": (0x20, 0xEA60, 1, "CP2102N USB to UART Bridge Controller"),
    "CP2105": (0x05, 0xEA70, 2, "CP2105 Dual USB to UART Bridge Controller"),
    "CP2108": (0x08, 0xEA71, 4, "CP2108 Quad USB to UART Bridge Controller"),
}
_FIRMWARE = bytes([1, 0, 8])
_FLOW_AT_START = (0x01, 0x40, 128, 128)


def cp210x(
    peers: Sequence[Peer],
    name: str = "CP2102N",
    busid: str = "1-1",
    serial: str = "0001",
    latency: float = 0.0,
    firmware: bytes = _FIRMWARE,
) -> Adapter:
    """A chip of CHIPS, with a peer for each of its lines."""
    part, product, count, title = CHIPS[name]
    interfaces = "".join(vendor_interface(number, 64) for number in range(count))
    described = describe(0x10C4, product, 0x0100, interfaces, ("Silicon Labs", title, serial))
    return exported(partial(SimulatedCp210x, part, firmware), described, peers, busid, latency)


class SimulatedCp210x(SimulatedAdapter):
    """The chip, from one import to its end. Lines that are not enabled move no data."""

    in_chip = frozenset({"rtscts", "dsrdtr", "xonxoff"})

    def __init__(
        self, part: int, firmware: bytes, info: DeviceInfo, descriptors: Descriptors, peers: Sequence[Peer]
    ) -> None:
        self._part = part
        self._firmware = firmware
        self._flow = [_FLOW_AT_START] * len(peers)
        self._errors = [0] * len(peers)
        self._enabled = [False] * len(peers)
        super().__init__(info, descriptors, peers)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.wIndex >= len(self.lines):
            return None
        line = self.lines[setup.wIndex]
        if setup.bmRequestType == 0xC0 and setup.bRequest == chip.VENDOR_SPECIFIC:
            known = {chip.GET_PARTNUM: bytes([self._part]), chip.GET_FW_VER_2N: self._firmware}
            return known.get(setup.wValue)
        if setup.bmRequestType == 0xC1:
            return self._read(line, setup.bRequest)
        if setup.bmRequestType != 0x41:
            return None
        handlers: dict[int, Callable[[Line, int, bytes], bool]] = {
            chip.IFC_ENABLE: self._enable,
            chip.SET_BAUDRATE: self._set_rate,
            chip.SET_LINE_CTL: self._set_frame,
            chip.SET_BREAK: self._set_break,
            chip.SET_MHS: self._set_lines,
            chip.SET_FLOW: self._set_flow,
            chip.SET_CHARS: lambda _line, _value, data: len(data) == 6,
            chip.PURGE: self._purge,
        }
        handler = handlers.get(setup.bRequest)
        return b"" if handler is not None and handler(line, setup.wValue, data) else None

    def send(self, line: Line, data: bytes) -> None:
        data = self.from_wire(line, data)
        if data and self._enabled[line.index]:
            self.feed(line.in_address, data)

    def report(self, line: Line, errors: LineErrors) -> None:
        bits = (errors.breaks, 1), (errors.framing, 2), (errors.overrun, 4), (errors.parity, 16)
        self._errors[line.index] |= sum(bit for count, bit in bits if count)

    def received(self, address: int, data: bytes) -> None:
        line = self._by_out.get(address)
        if line is not None and self._enabled[line.index]:
            super().received(address, data)

    def _read(self, line: Line, request: int) -> bytes | None:
        if request == chip.GET_MDMSTS:
            modem = line.modem
            there = modem.cts << 4 | modem.dsr << 5 | modem.ri << 6 | modem.cd << 7
            return bytes([line.dtr | line.rts << 1 | there])
        if request == chip.GET_COMM_STATUS:
            errors, self._errors[line.index] = self._errors[line.index], 0
            return errors.to_bytes(4, "little") + bytes(chip.COMM_STATUS_LENGTH - 4)
        return chip.FLOW.pack(*self._flow[line.index]) if request == chip.GET_FLOW else None

    def _enable(self, line: Line, value: int, _data: bytes) -> bool:
        self._enabled[line.index] = bool(value & 1)
        return True

    def _set_rate(self, line: Line, _value: int, data: bytes) -> bool:
        return len(data) == 4 and self.host_sets(line, baudrate=int.from_bytes(data, "little"))

    def _set_frame(self, line: Line, value: int, _data: bytes) -> bool:
        stopbits, parity = value & 15, value >> 4 & 15
        if stopbits >= len(STOP_BITS) or parity >= len(PARITIES):
            return False
        return self.host_sets(line, bytesize=value >> 8, parity=PARITIES[parity], stopbits=STOP_BITS[stopbits])

    def _set_break(self, line: Line, value: int, _data: bytes) -> bool:
        self.host_breaks(line, bool(value))
        return True

    def _set_lines(self, line: Line, value: int, _data: bytes) -> bool:
        dtr = bool(value & 1) if value & 0x100 else line.dtr
        rts = bool(value & 2) if value & 0x200 else line.rts
        self.host_drives(line, dtr, rts)
        return True

    def _set_flow(self, line: Line, _value: int, data: bytes) -> bool:
        if len(data) != chip.FLOW.size:
            return False
        control, replace, _, _ = self._flow[line.index] = chip.FLOW.unpack(data)
        self.host_sets(
            line,
            rtscts=bool(control & chip.CTS_HANDSHAKE),
            dsrdtr=bool(control & chip.DSR_HANDSHAKE),
            xonxoff=bool(replace & chip.AUTO_TRANSMIT),
        )
        self.host_drives(line, bool(control & chip.DTR_MODE), bool(replace & chip.RTS_MODE))
        return True

    def _purge(self, line: Line, value: int, _data: bytes) -> bool:
        if value & 0x0A:
            self._queues.pop(line.in_address, None)
        return True
