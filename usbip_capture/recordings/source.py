"""Where a capture comes from: a file, a named pipe or standard input, gzip'ed or not."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import cast

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.packed import packed_with
from usbip_capture.recordings.packets import CutOff, Damaged
from usbip_capture.system.shown import one_line

_CHUNK = 1 << 20
_MAGIC = 4
_GZIP = b"\x1f\x8b"
_WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS


def shown(path: str | os.PathLike[str]) -> str:
    """A file's name as it may be printed, whatever bytes it is made of."""
    return one_line(os.fsencode(path).decode(errors="backslashreplace"))


class Source:
    """The bytes of a capture, unpacked.

    name: what to call it. first: the bytes it begins with, as many as came at once, `magic` the first 4 of them.
    """

    def __init__(self, name: str, read: Callable[[], bytes]) -> None:
        self.name = name
        self._read = read
        self._taken = 0
        self.unpacked = False
        self.first = self.more(b"", _MAGIC)
        if self.first.startswith(_GZIP):
            self._read = _Gunzip(self.first, read).read
            self._taken = 0
            self.unpacked = True
            self.first = self.more(b"", _MAGIC)
        self.magic = self.first[:_MAGIC]

    def more(self, rest: bytes, size: int) -> bytes:
        """`rest`, which is left of what was given before, and what follows: `size` bytes unless the capture ends.

        Usually much more than `size`. Raises CaptureError if it cannot be read.
        """
        parts, have = [rest], len(rest)
        while have < size:
            try:
                part = self._read()
            except OSError as error:
                raise CaptureError(f"{self.name} cannot be read: {error.strerror or error}") from error
            except EOFError:
                raise CutOff(f"{self.name} is cut off {self.at(0)}: what gzip packed has no end") from None
            except zlib.error:
                raise Damaged(f"{self.name} is damaged {self.at(0)}: what gzip packed cannot be unpacked") from None
            if not part:
                break
            parts.append(part)
            have += len(part)
            self._taken += len(part)
        return b"".join(parts)

    def at(self, unused: int) -> str:
        """In words, the place `unused` bytes before the end of what was given."""
        return f"at byte {self._taken - unused}{' (unpacked)' if self.unpacked else ''}"


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Open a capture for reading from its beginning; `-` is standard input. Raises CaptureError."""
    if os.fspath(path) == "-":
        if sys.stdin is None:
            raise CaptureError("standard input is closed: give the capture's name, or pipe the capture in")
        yield _checked(Source("standard input", _reads_of(cast(BufferedReader, sys.stdin.buffer))))
        return
    name = shown(path)
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only opening it may fail in this way
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaptureError(f"{name} cannot be read: {reason}") from error
    with file:
        yield _checked(Source(name, _reads_of(file)))


def _reads_of(file: BufferedReader) -> Callable[[], bytes]:
    # read1: what a live pipe has is used at once.
    return lambda: file.read1(_CHUNK)


def _checked(source: Source) -> Source:
    if not source.first:
        raise CaptureError(f"{source.name} is empty")
    packed = packed_with(source.name, source.first)
    if packed is not None:
        raise CaptureError(packed)
    return source


class _Gunzip:
    """Unpacks what gzip made, of one member or several, never more than a chunk at a time."""

    def __init__(self, first: bytes, read: Callable[[], bytes]) -> None:
        self._packed = first
        self._read = read
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
            part = self._unpacker.decompress(packed, _CHUNK)
            self._packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if part:
                return part
            if not packed and not self._unpacker.eof:
                raise EOFError
