"""What a simulated FTDI chip has besides its UART: pins in bit-bang mode, and an EEPROM.

Ref: FTDI AN232R-01 (bit-bang modes of the FT232R and FT245R), AN_184 (of the FT-X), AN_121 (EEPROM user area);
libftdi 1.5, ftdi.c (ftdi_eeprom_build: the layout, and the checksum of the last word)
"""

from __future__ import annotations

from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.serial.line import Line
from usbip_capture.usb.descriptors import DeviceDescriptor

UART, ASYNCHRONOUS, SYNCHRONOUS, CBUS = 0x00, 0x01, 0x04, 0x20
#: Modes that are simulated. What else a chip has, such as MPSSE, is refused.
MODES = (UART, ASYNCHRONOUS, SYNCHRONOUS, CBUS)
_ERASED = 0xFF
_FIRST_STRING = 0x18
_CHECKSUM_SEED = 0xAAAA
_USES_SERIAL = 0x08
_BIG_MEMORIES = {0x0700: 256, 0x0800: 256, 0x0900: 256, 0x1000: 1024}  # bytes, by bcdDevice
_FT_X = 0x1000  # with a layout of its own
_SMALL_MEMORY = 128
# Pins of a UART, all of them low when active. Ref: FT232R datasheet, 3.1
_TXD, _RXD, _RTS, _CTS, _DTR, _DSR, _DCD, _RI = (1 << bit for bit in range(8))


class Pins:
    """The eight pins of one line. mask: outputs in bit-bang mode; what is not driven is pulled up."""

    def __init__(self) -> None:
        self.mode = UART
        self._mask = self._latch = 0

    def configure(self, mode: int, mask: int) -> bool:
        """SET_BITMODE. False: there is no such mode here."""
        if mode not in MODES:
            return False
        self.mode = mode
        if mode == CBUS:  # directions in the upper half, levels in the lower one
            self._mask, self._latch = mask >> 4, mask & 0x0F
        else:
            self._mask = mask
        return True

    def write(self, data: bytes) -> bytes:
        """Bytes from the host, in a bit-bang mode: what the synchronous one reads back, the levels before each."""
        before = bytearray()
        for value in data:
            before.append(self._levels())
            self._latch = value
        return bytes(before) if self.mode == SYNCHRONOUS else b""

    def read(self, line: Line) -> int:
        """READ_PINS: the levels now, whatever the mode is."""
        if self.mode == UART:
            modem = line.modem
            active = line.rts * _RTS | modem.cts * _CTS | line.dtr * _DTR | modem.dsr * _DSR | modem.cd * _DCD
            return 0xFF & ~(active | modem.ri * _RI | line.breaking * _TXD)
        return self._levels() & (0x0F if self.mode == CBUS else 0xFF)

    def _levels(self) -> int:
        return self._latch & self._mask | 0xFF & ~self._mask


class Eeprom:
    """As the maker of such a device has programmed it, that of an FT-X erased. Changes last until the import ends."""

    def __init__(self, descriptors: Descriptors) -> None:
        device = DeviceDescriptor.parse(descriptors.device)
        size = _BIG_MEMORIES.get(device.bcdDevice, _SMALL_MEMORY)
        self._content = bytearray([_ERASED]) * size
        if device.bcdDevice != _FT_X:
            self._program(device, descriptors)

    def _program(self, device: DeviceDescriptor, descriptors: Descriptors) -> None:
        size = len(self._content)
        attributes, power = descriptors.configurations[0][7:9]
        head = bytes([0, 0x40]) + descriptors.device[8:14] + bytes([attributes, power])
        head += bytes([_USES_SERIAL if device.iSerialNumber else 0, 0]) + descriptors.device[2:4]
        at = _FIRST_STRING
        strings = b""
        for index in (device.iManufacturer, device.iProduct, device.iSerialNumber):
            text = descriptors.strings[index - 1] if 0 < index <= len(descriptors.strings) else ""
            room = size - 2 - at - len(strings) - 2
            raw = text.encode("utf-16-le", "replace")[: max(room, 0) & ~1]
            packed = bytes([2 + len(raw), 3]) + raw if room >= 0 else b""
            head += bytes([at + len(strings) & 0x7F | 0x80, len(packed)])
            strings += packed
        content = head.ljust(at, b"\0") + strings
        self._content[: len(content)] = content
        self._content[size - 2 :] = _checksum(bytes(self._content[: size - 2])).to_bytes(2, "little")

    def read(self, word: int) -> bytes:
        """The two bytes at an address, which wraps around."""
        at = 2 * word % len(self._content)
        return bytes(self._content[at : at + 2])

    def write(self, word: int, value: int) -> None:
        """Change a word."""
        at = 2 * word % len(self._content)
        self._content[at : at + 2] = value.to_bytes(2, "little")

    def erase(self) -> None:
        """Set all bits."""
        self._content[:] = bytes([_ERASED]) * len(self._content)


def _checksum(content: bytes) -> int:
    checksum = _CHECKSUM_SEED
    for at in range(0, len(content), 2):
        checksum ^= content[at] | content[at + 1] << 8
        checksum = (checksum << 1 | checksum >> 15) & 0xFFFF
    return checksum
