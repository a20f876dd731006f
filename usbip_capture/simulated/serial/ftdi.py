"""A simulated FTDI chip: status bytes in each packet, a latency timer, one to four lines, bit-bang modes, an EEPROM.

Ref: as `usbip_capture.uart.ftdi`; libftdi 1.5, ftdi.h (the requests that no driver of a serial port sends)
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.serial.adapter import SimulatedAdapter
from usbip_capture.simulated.serial.exported import Adapter, describe, exported, vendor_interface
from usbip_capture.simulated.serial.ftdi_pins import ASYNCHRONOUS, CBUS, UART, Eeprom, Pins
from usbip_capture.simulated.serial.line import Line, Peer
from usbip_capture.uart import ftdi as chip
from usbip_capture.uart.settings import PARITIES, STOP_BITS, LineErrors
from usbip_capture.usb.descriptors import DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup

#: PID, bcdDevice, lines and product name of what can be simulated.
CHIPS = {
    "FT232R": (0x6001, 0x0600, 1, "FT232R USB UART"),
    "FT2232H": (0x6010, 0x0700, 2, "Dual RS232-HS"),
    "FT4232H": (0x6011, 0x0800, 4, "Quad RS232-HS"),
    "FT230X": (0x6015, 0x1000, 1, "FT230X Basic UART"),
}
_FULL_SPEED = ("FT232R", "FT230X")
_STATUS_READY, _EMPTY = 0x01, 0x60  # first byte's fixed bit; second byte: nothing left to transmit
_SET_EVENT_CHAR, _SET_ERROR_CHAR = 6, 7
_GET_LATENCY_TIMER, _SET_BIT_MODE, _READ_PINS = 10, 11, 12
_READ_EEPROM, _WRITE_EEPROM, _ERASE_EEPROM = 0x90, 0x91, 0x92
_EVENT_ENABLED = 0x100
_WIRED = (UART, CBUS)  # modes in which the UART works
_NO_BIT_MODES = 0x0200  # bcdDevice of the oldest chip


def ftdi(
    peers: Sequence[Peer], name: str = "FT232R", busid: str = "1-1", serial: str = "FTSIM001", latency: float = 0.0
) -> Adapter:
    """A chip of CHIPS, with a peer for each of its lines."""
    product, release, count, title = CHIPS[name]
    high = name not in _FULL_SPEED
    interfaces = "".join(vendor_interface(number, 512 if high else 64) for number in range(count))
    described = describe(0x0403, product, release, interfaces, ("FTDI", title, serial))
    return exported(SimulatedFtdi, described, peers, busid, latency, Speed.HIGH if high else Speed.FULL)


class SimulatedFtdi(SimulatedAdapter):
    """The chip, from one import to its end."""

    in_chip = frozenset({"rtscts", "dsrdtr", "xonxoff"})

    def __init__(self, info: DeviceInfo, descriptors: Descriptors, peers: Sequence[Peer]) -> None:
        self._channels = DeviceDescriptor.parse(descriptors.device).bcdDevice not in chip.ONE_CHANNEL
        self._packet = 512 if info.speed == Speed.HIGH else 64
        self._timer = [chip.LATENCY_MS] * len(peers)
        self._errors = [0] * len(peers)
        self._rest = [bytearray() for _ in peers]
        self._pins = [Pins() for _ in peers]
        self._event = [-1] * len(peers)
        self._eeprom = Eeprom(descriptors)
        self._bit_modes = DeviceDescriptor.parse(descriptors.device).bcdDevice != _NO_BIT_MODES
        super().__init__(info, descriptors, peers)
        for line in self.lines:
            self._tick(line)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.bRequest >= _READ_EEPROM:
            return self._memory(setup)
        channel = setup.wIndex & 0xFF
        if setup.bRequest == chip.SET_BAUD_RATE and not self._channels:
            channel = 0  # the divisor's highest bits are there
        index = max(channel - 1, 0)
        if index >= len(self.lines) or setup.bmRequestType not in (0x40, 0xC0):
            return None
        line, value = self.lines[index], setup.wValue
        if setup.bmRequestType == 0xC0:
            return self._answer(line, setup.bRequest)
        if setup.bRequest == chip.RESET:
            if value in (0, chip.PURGE_RX):
                self._rest[index].clear()
                self._queues.pop(line.in_address, None)
        elif setup.bRequest == chip.MODEM_CTRL:
            dtr = bool(value & 1) if value & 0x100 else line.dtr
            rts = bool(value & 2) if value & 0x200 else line.rts
            self.host_drives(line, dtr, rts)
        elif setup.bRequest == chip.SET_FLOW_CTRL:
            flow = setup.wIndex >> 8
            self.host_sets(line, rtscts=bool(flow & 1), dsrdtr=bool(flow & 2), xonxoff=bool(flow & 4))
        elif setup.bRequest == chip.SET_BAUD_RATE:
            self.host_sets(line, baudrate=self._baudrate(setup))
        elif setup.bRequest == chip.SET_DATA:
            return self._set_data(line, value)
        elif setup.bRequest == chip.SET_LATENCY_TIMER and 1 <= value <= 255:
            self._timer[index] = value
            self.host_sets(line, low_latency=value == chip.LOW_LATENCY_MS)
        elif setup.bRequest == _SET_EVENT_CHAR:
            self._event[index] = value & 0xFF if value & _EVENT_ENABLED else -1
        elif setup.bRequest == _SET_BIT_MODE and self._bit_modes:
            return b"" if self._pins[index].configure(value >> 8, value & 0xFF) else None
        elif setup.bRequest != _SET_ERROR_CHAR:
            return None
        return b""

    def _answer(self, line: Line, request: int) -> bytes | None:
        if request == chip.GET_MODEM_STATUS:
            return self._status(line)
        if request == _GET_LATENCY_TIMER:
            return bytes([self._timer[line.index]])
        if request == _READ_PINS and self._bit_modes:
            return bytes([self._pins[line.index].read(line)])
        return None

    def _memory(self, setup: Setup) -> bytes | None:
        """Requests to the EEPROM: wIndex is the address of a word, not a channel."""
        request = setup.bmRequestType, setup.bRequest
        if request == (0xC0, _READ_EEPROM):
            return self._eeprom.read(setup.wIndex)
        if request == (0x40, _WRITE_EEPROM):
            self._eeprom.write(setup.wIndex, setup.wValue)
        elif request == (0x40, _ERASE_EEPROM):
            self._eeprom.erase()
        else:
            return None
        return b""

    def received(self, address: int, data: bytes) -> None:
        line = self._by_out.get(address)
        if line is None or self._pins[line.index].mode in _WIRED:
            super().received(address, data)
            return
        self._to_host(line, self._pins[line.index].write(data))

    def send(self, line: Line, data: bytes) -> None:
        if self._pins[line.index].mode in _WIRED:
            self._to_host(line, data)
            if self._event[line.index] >= 0 and self._event[line.index] in data:
                self._short_packet(line)

    def _to_host(self, line: Line, data: bytes) -> None:
        room = self._packet - chip.STATUS_LENGTH
        with self._lock:
            rest = self._rest[line.index]
            rest += self.from_wire(line, data)
            whole = len(rest) // room * room
            status = self._status(line)
            packets = b"".join(status + bytes(rest[at : at + room]) for at in range(0, whole, room))
            del rest[:whole]
        if packets:
            self.feed(line.in_address, packets)

    def modem_changed(self, line: Line) -> None:
        super().modem_changed(line)
        self._short_packet(line)  # at once, the timer notwithstanding

    def report(self, line: Line, errors: LineErrors) -> None:
        bits = (errors.overrun, 2), (errors.parity, 4), (errors.framing, 8), (errors.breaks, 16)
        self._errors[line.index] = sum(bit for count, bit in bits if count)
        self._short_packet(line)
        self._errors[line.index] = 0

    def _status(self, line: Line) -> bytes:
        modem = line.modem
        first = modem.cts << 4 | modem.dsr << 5 | modem.ri << 6 | modem.cd << 7
        return bytes([first | _STATUS_READY, _EMPTY | self._errors[line.index]])

    def _short_packet(self, line: Line) -> None:
        with self._lock:
            rest = self._rest[line.index]
            packet = self._status(line) + bytes(rest)
            rest.clear()
        self.feed(line.in_address, packet)

    def _tick(self, line: Line) -> None:
        """The latency timer is over."""
        self.timetable.after(self._timer[line.index] / 1000, lambda: self._tick(line))
        if self.waits_for_data(line.in_address):
            pins = self._pins[line.index]
            if pins.mode == ASYNCHRONOUS:
                with self._lock:
                    self._rest[line.index].append(pins.read(line))
            self._short_packet(line)

    def _set_data(self, line: Line, value: int) -> bytes | None:
        parity, stopbits = value >> 8 & 7, value >> 11 & 3
        if parity >= len(PARITIES) or stopbits >= len(STOP_BITS) or value & 0xFF not in (7, 8):
            return None
        self.host_sets(line, bytesize=value & 0xFF, parity=PARITIES[parity], stopbits=STOP_BITS[stopbits])
        self.host_breaks(line, bool(value & 1 << 14))
        return b""

    def _baudrate(self, setup: Setup) -> int:
        """The speed that a divisor makes."""
        index = setup.wIndex >> 8 if self._channels else setup.wIndex
        encoded = setup.wValue | (index & 3) << 16
        clock = 12_000_000 if encoded >> 17 else 3_000_000
        eighths = (encoded & 0x3FFF) * 8 + chip.EIGHTHS.index(encoded >> 14 & 7)
        eighths = {0: 8, 8: 12}.get(eighths, eighths)
        return round(clock * 8 / eighths)
