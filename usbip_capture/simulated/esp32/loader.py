"""What an ESP32's ROM, and a flasher stub in its memory, answer to a programmer.

Ref: Espressif, esptool documentation, "Serial Protocol"
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from functools import reduce
from operator import xor
from struct import Struct, unpack_from

from usbip_capture.simulated.esp32.flash import Flash, Registers

_HEAD = Struct("<BBHI")  # direction, command, size, checksum or value
_SEED = 0xEF  # of checksums
_BLOCK_HEAD = 16  # length, sequence number, two zeros
_SLOW_READ = 64
_STUB_HELLO = b"OHAI"

# Status and reason of a reply
_OK, _FAILED = (0, 0), 1
_INVALID, _BAD_CHECKSUM, _FLASH_ERROR = 0x05, 0x07, 0x08

_SYNC = b"\x07\x07\x12\x20" + b"\x55" * 32
_SYNC_REPLIES = 8
_ROM_SYNC_VALUE = 0x20120707  # a stub has 0, and is known by that


class Refused(Exception):
    """A command that fails, with the reason's number."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


class Loader:
    """Takes packets, gives packets by `send`. `stub` is true once a program was loaded and started.

    reboot: called when a command ends the loader.
    """

    def __init__(self, flash: Flash, registers: Registers, send: Callable[[bytes], None], reboot: Callable[[], None]):
        self.stub = False
        self._flash = flash
        self._registers = registers
        self._send = send
        self._reboot = reboot
        self._at = 0  # where the next block goes
        self._inflate = zlib.decompressobj()
        self._erase_as_written = 0  # a stub's sectors, up to which nothing needs erasing any more
        self._reading: tuple[bytes, int, int, int] | None = None  # data, block, in flight, sent
        self._new_baudrate: int | None = None
        self._commands: dict[int, Callable[[bytes], bytes]] = {
            0x02: self._flash_begin, 0x03: self._flash_data, 0x04: self._flash_end, 0x05: self._accept,
            0x06: self._mem_end, 0x07: self._mem_data, 0x08: self._sync, 0x09: self._write_register,
            0x0B: self._accept, 0x0D: self._accept, 0x0F: self._change_baudrate, 0x10: self._deflated_begin,
            0x11: self._deflated_data, 0x12: self._flash_end, 0x13: self._md5,
        }  # fmt: skip
        self._rom_only: dict[int, Callable[[bytes], bytes]] = {0x0E: self._read_slow}
        self._stub_only: dict[int, Callable[[bytes], bytes]] = {
            0xD0: self._erase_all, 0xD1: self._erase_region, 0xD2: self._read_flash,
        }  # fmt: skip

    def packet(self, packet: bytes) -> None:
        """One packet of the programmer. Anything may be in it."""
        if self._reading is not None and len(packet) == 4:
            self._acknowledged(int.from_bytes(packet, "little"))
            return
        if len(packet) < _HEAD.size or packet[0]:
            return
        _, command, size, checksum = _HEAD.unpack_from(packet)
        body = packet[_HEAD.size :]
        if len(body) != size:
            self._reply(command, 0, b"", (_FAILED, _INVALID))
            return
        if command == 0x0A and size >= 4:
            self._reply(command, self._registers.read(int.from_bytes(body[:4], "little")), b"", _OK)
            return
        known = self._commands | (self._stub_only if self.stub else self._rom_only)
        try:
            if command not in known:
                raise Refused(_INVALID)
            if command in (0x03, 0x07, 0x11) and reduce(xor, body[_BLOCK_HEAD:], _SEED) != checksum & 0xFF:
                raise Refused(_BAD_CHECKSUM)
            self._answer(command, known[command](body))
        except Refused as refused:
            self._reply(command, 0, b"", (_FAILED, refused.reason))
        except (IndexError, ValueError, zlib.error):
            self._reply(command, 0, b"", (_FAILED, _INVALID))
        self._after(command, body)

    def _answer(self, command: int, data: bytes) -> None:
        for _ in range(_SYNC_REPLIES if command == 0x08 else 1):
            self._reply(command, _ROM_SYNC_VALUE if command == 0x08 and not self.stub else 0, data, _OK)

    def _reply(self, command: int, value: int, data: bytes, status: tuple[int, int]) -> None:
        # The ROM has two more bytes there, which mean nothing.
        tail = bytes(status) + (b"" if self.stub else bytes(2))
        self._send(_HEAD.pack(1, command, len(data) + len(tail), value) + data + tail)

    def _after(self, command: int, body: bytes) -> None:
        """What happens when the reply is out."""
        if command == 0x06 and len(body) >= 8 and not int.from_bytes(body[:4], "little"):
            self.stub = True
            self._send(_STUB_HELLO)
        if command == 0xD2 and self._reading is not None:
            self._send_blocks(0)
        if command in (0x04, 0x12) and body[:4] == bytes(4):
            self._reboot()
        if self._new_baudrate is not None:
            self._registers.baudrate, self._new_baudrate = self._new_baudrate, None

    # -- commands: each returns its reply's data, and raises Refused, IndexError or ValueError

    def _accept(self, body: bytes) -> bytes:
        return b""

    def _sync(self, body: bytes) -> bytes:
        if body != _SYNC:
            raise Refused(_INVALID)
        return b""

    def _write_register(self, body: bytes) -> bytes:
        for at in range(0, len(body) - 15, 16):
            address, value, mask, _delay = unpack_from("<IIII", body, at)
            self._registers.write(address, value, mask)
        return b""

    def _change_baudrate(self, body: bytes) -> bytes:
        self._new_baudrate = int.from_bytes(body[:4], "little") or None
        return b""

    def _mem_data(self, body: bytes) -> bytes:
        if len(body) < _BLOCK_HEAD:
            raise Refused(_INVALID)
        return b""  # nothing runs what is loaded: the stub is simulated too

    def _mem_end(self, body: bytes) -> bytes:
        if len(body) < 8:
            raise Refused(_INVALID)
        return b""

    def _flash_begin(self, body: bytes) -> bytes:
        erase, _blocks, _block, self._at = _words(body, 4)
        self._begin(erase)
        return b""

    def _deflated_begin(self, body: bytes) -> bytes:
        self._inflate = zlib.decompressobj()
        return self._flash_begin(body)

    def _begin(self, erase: int) -> None:
        self._erase_as_written = self._at
        if not self.stub and erase and not self._flash.erase(self._at, erase):
            raise Refused(_FLASH_ERROR)

    def _flash_data(self, body: bytes) -> bytes:
        self._write(self._block(body))
        return b""

    def _deflated_data(self, body: bytes) -> bytes:
        self._write(self._inflate.decompress(self._block(body), len(self._flash.content)))
        return b""

    def _block(self, body: bytes) -> bytes:
        length, *_ = _words(body, 4)
        if length != len(body) - _BLOCK_HEAD:
            raise Refused(_INVALID)
        return body[_BLOCK_HEAD:]

    def _write(self, data: bytes) -> None:
        end = self._at + len(data)
        if self.stub and end > self._erase_as_written:
            if not self._flash.erase(self._erase_as_written, end - self._erase_as_written):
                raise Refused(_FLASH_ERROR)
            self._erase_as_written = -(-end // 4096) * 4096
        if not self._flash.write(self._at, data):
            raise Refused(_FLASH_ERROR)
        self._at = end

    def _flash_end(self, body: bytes) -> bytes:
        return b""

    def _md5(self, body: bytes) -> bytes:
        offset, size, *_ = _words(body, 4)
        digest = hashlib.md5(self._content(offset, size), usedforsecurity=False)
        return digest.digest() if self.stub else digest.hexdigest().encode()

    def _read_slow(self, body: bytes) -> bytes:
        offset, size = _words(body, 2)
        return self._content(offset, min(size, _SLOW_READ)).ljust(_SLOW_READ, b"\0")

    def _erase_all(self, body: bytes) -> bytes:
        self._flash.erase(0, len(self._flash.content))
        return b""

    def _erase_region(self, body: bytes) -> bytes:
        offset, size = _words(body, 2)
        if offset % 4096 or size % 4096 or not self._flash.erase(offset, size):
            raise Refused(_FLASH_ERROR)
        return b""

    def _content(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._flash.content):
            raise Refused(_FLASH_ERROR)
        return bytes(self._flash.content[offset : offset + size])

    # -- a stub sends flash as packets of their own, some of them ahead of what was acknowledged

    def _read_flash(self, body: bytes) -> bytes:
        offset, size, block, ahead = _words(body, 4)
        if not block:
            raise Refused(_INVALID)
        self._reading = self._content(offset, size), block, max(ahead, 1), 0
        return b""

    def _acknowledged(self, received: int) -> None:
        assert self._reading is not None
        data = self._reading[0]
        if received >= len(data):
            self._reading = None
            self._send(hashlib.md5(data, usedforsecurity=False).digest())
        else:
            self._send_blocks(received)

    def _send_blocks(self, received: int) -> None:
        assert self._reading is not None
        data, block, ahead, sent = self._reading
        while sent < len(data) and sent < received + ahead * block:
            self._send(data[sent : sent + block])
            sent += block
        self._reading = data, block, ahead, sent


def _words(body: bytes, count: int) -> tuple[int, ...]:
    """The first words of a command's data. Raises Refused if they are not there."""
    if len(body) < 4 * count:
        raise Refused(_INVALID)
    return unpack_from(f"<{count}I", body)
