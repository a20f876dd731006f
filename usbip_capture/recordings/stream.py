"""The bytes of a capture as its readers take them: unpacked, in portions, with places for error messages."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.packets import CutOff, Damaged

_CHUNK = 1 << 20
_MAGIC = 4
_GZIP = b"\x1f\x8b"
_WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS


class Stream:
    """What `read` brings, empty at its end, unpacked in portions of at most `chunk` bytes if it is gzip'ed.

    name: what to call it. first: the bytes it begins with, as many as came at once, `magic` the first 4 of them.
    """

    def __init__(self, name: str, read: Callable[[], bytes], chunk: int = _CHUNK) -> None:
        self.name = name
        self._portion = read
        self._read_so_far = 0
        self.unpacked = False
        self.first = self.more(b"", _MAGIC)
        if self.first.startswith(_GZIP):
            self._portion = _Gunzip(self.first, read, chunk).read
            self._read_so_far = 0
            self.unpacked = True
            self.first = self.more(b"", _MAGIC)
        self.magic = self.first[:_MAGIC]

    def more(self, rest: bytes, size: int) -> bytes:
        """`rest`, which is left of the portion before, and what follows: `size` bytes unless the capture ends.

        Usually much more than `size`. Raises CaptureError if it cannot be read.
        """
        parts, have = [rest], len(rest)
        while have < size:
            part = self._next()
            if not part:
                break
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def skip(self, size: int) -> bytes | None:
        """What follows the next `size` bytes, of which nothing is kept; None if the capture ends in them."""
        while part := self._next():
            if len(part) >= size:
                return part[size:]
            size -= len(part)
        return None

    @property
    def position(self) -> int:
        """Where the latest portion ends: bytes of the capture, unpacked."""
        return self._read_so_far

    def at(self, unused: int) -> str:
        """In words, the place `unused` bytes before the end of the latest portion."""
        return f"at byte {self._read_so_far - unused}{' (unpacked)' if self.unpacked else ''}"

    def _next(self) -> bytes:
        try:
            part = self._portion()
        except OSError as error:
            raise CaptureError(f"{self.name} cannot be read: {error.strerror or error}") from error
        except EOFError:
            raise CutOff(f"{self.name} is cut off {self.at(0)}: what gzip packed has no end") from None
        except zlib.error:
            raise Damaged(f"{self.name} is damaged {self.at(0)}: what gzip packed cannot be unpacked") from None
        self._read_so_far += len(part)
        return part


class _Gunzip:
    """Unpacks what gzip made, of one member or several, never more than a chunk at a time."""

    def __init__(self, first: bytes, read: Callable[[], bytes], chunk: int) -> None:
        self._packed = first
        self._read = read
        self._chunk = chunk
        self._unpacker = zlib.decompressobj(_WITH_GZIP_HEADER)

    def read(self) -> bytes:
        """The next bytes; none at the end. Raises EOFError if it is cut off, zlib.error if it is damaged."""
        while True:
            if self._unpacker.eof:
                # Zeros may follow the last member. Ref: gzip(1), CAVEATS
                self._packed = self._packed.lstrip(b"\0") or self._read()
                if not self._packed:
                    return b""
                if self._packed[:1] != b"\0":
                    self._unpacker = zlib.decompressobj(_WITH_GZIP_HEADER)
                continue
            packed = self._packed or self._read()
            part = self._unpacker.decompress(packed, self._chunk)
            self._packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if part:
                return part
            if not packed and not self._unpacker.eof:
                raise EOFError
