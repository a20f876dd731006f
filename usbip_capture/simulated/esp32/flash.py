"""The flash chip beside a simulated ESP32, and the few registers that the loader's clients read and write.

Ref: ESP32 Technical Reference Manual, 7 (SPI controller), 20 (eFuse controller), 18.4 (timer group registers)
"""

from __future__ import annotations

_SECTOR = 4096

# SPI1 controller
_SPI = 0x3FF42000
_SPI_CMD, _SPI_USR2, _SPI_W0 = _SPI, _SPI + 0x24, _SPI + 0x80
_CMD_USR = 1 << 18
_READ_ID, _READ_STATUS = 0x9F, 0x05
# The value that distinguishes an ESP32 from its relatives
_MAGIC, _ESP32 = 0x40001000, 0x00F01D83
_UART_CLOCK_DIVIDER = 0x3FF40014
_EFUSE_BLOCK0 = 0x3FF5A000
_XTAL_HZ = 40_000_000
# The crystal measured against the internal 8 MHz oscillator, whose frequency is in the eFuses: programmers compute
# the first from the other two when they change the ROM's speed.
_CALIBRATION, _CYCLES = 0x3FF5F06C, 800
_OSCILLATOR = 128  # in 62.5 kHz


class Flash:
    """Bytes that erase to 0xFF. size: in bytes, a power of two."""

    def __init__(self, size: int = 4 << 20) -> None:
        self.content = bytearray(b"\xff" * size)
        # Winbond's manufacturer and type; the last byte is log2 of the size.
        self.identity = 0xEF | 0x40 << 8 | (size.bit_length() - 1) << 16

    def erase(self, offset: int, size: int) -> bool:
        """Erase whole sectors; False if they are not there."""
        start = offset // _SECTOR * _SECTOR
        end = -(-(offset + size) // _SECTOR) * _SECTOR
        if end > len(self.content):
            return False
        self.content[start:end] = b"\xff" * (end - start)
        return True

    def write(self, offset: int, data: bytes) -> bool:
        """Clear bits, as flash does; False if that is not there."""
        if offset + len(data) > len(self.content):
            return False
        old = int.from_bytes(self.content[offset : offset + len(data)], "little")
        self.content[offset : offset + len(data)] = (old & int.from_bytes(data, "little")).to_bytes(len(data), "little")
        return True


class Registers:
    """Memory-mapped registers: what is written is read again, and some identify the chip. baudrate: the loader's."""

    def __init__(self, flash: Flash, mac: bytes) -> None:
        self._flash = flash
        self._words: dict[int, int] = {
            _MAGIC: _ESP32,
            _EFUSE_BLOCK0 + 4: int.from_bytes(mac[2:6], "big"),
            # Its upper half is a CRC of the address that nobody checks over the line.
            _EFUSE_BLOCK0 + 8: int.from_bytes(mac[0:2], "big"),
            _EFUSE_BLOCK0 + 16: _OSCILLATOR,
            _CALIBRATION: _CYCLES << 7,
        }
        self.baudrate = 115200

    def read(self, address: int) -> int:
        """A word of 32 bits."""
        if address == _UART_CLOCK_DIVIDER:
            return _XTAL_HZ // self.baudrate
        return self._words.get(address, 0)

    def write(self, address: int, value: int, mask: int) -> None:
        """Change the bits in `mask`; a command to the flash is done at once."""
        self._words[address] = self.read(address) & ~mask | value & mask
        if address == _SPI_CMD and self._words[address] & _CMD_USR:
            command = self.read(_SPI_USR2) & 0xFF
            self._words[_SPI_W0] = {_READ_ID: self._flash.identity, _READ_STATUS: 0}.get(command, 0)
            self._words[_SPI_CMD] = 0
