"""Sinks for files beyond the plain one: compressed ones, and several one after the other."""

from __future__ import annotations

import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

from usbip_capture.capture.rotation import Rotation, file_name
from usbip_capture.capture.sinks import FileSink, Sink
from usbip_capture.capture.trailer import Part
from usbip_capture.errors import CaptureError
from usbip_capture.usb.urb import Buffer

# Block types. Ref: draft-ietf-opsawg-pcapng, 11.1
_SECTION_HEADER, _INTERFACE, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
#: Bytes of a statistics block with all of its numbers.
_STATISTICS = 88
_GZIP = 31  # zlib's wbits
_LEVEL = 6
_SUFFIX = ".gz"


def misleading_ending(path: str) -> str:
    """What is wrong with the name of a capture that promises another format; empty if nothing is.

    A pipe may have any name. Raises nothing.
    """
    name = path.lower().removesuffix(_SUFFIX)
    if not name.endswith((".pcap", ".cap")) or not _is_file(path):
        return ""
    at = name.rindex(".")
    return f"must not end with {name[at:]}: captures are pcapng, as in {path[:at]}.pcapng"


def _is_file(path: str) -> bool:
    """Whether it is, or would be, a regular file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True


class GzipSink(FileSink):
    """A gzip'ed file. Each write can be read at once, also after a crash: it ends at a byte, not within one."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._failed = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        packed = [self._compressor.compress(buffer) for buffer in buffers]
        super().write([*packed, self._compressor.flush(zlib.Z_SYNC_FLUSH)])

    def close(self) -> None:
        try:
            if self._fd >= 0 and not self._failed:
                super().write([self._compressor.flush()])
        finally:
            super().close()

    def _cut(self, buffers: Sequence[Buffer]) -> None:
        """Take off what was begun and found no room: what came before can be read, and no end would fit to it."""
        self._failed = True
        with suppress(OSError):
            os.ftruncate(self._fd, self._begin + self.written)


def file_sink(path: str) -> FileSink:
    """A file; gzip'ed if its name ends with .gz. Raises CaptureError."""
    return GzipSink(path) if path.lower().endswith(_SUFFIX) else FileSink(path)


class RotatingSink(Sink):
    """A pcapng section in several files, each of which can be read by itself: it begins with all interfaces so far.

    Each ends with statistics of its own. files: those that are kept, the oldest first.
    """

    patience = FileSink.patience

    def __init__(self, path: str, rotation: Rotation, clock: Callable[[], float] = time.time) -> None:
        """Raises CaptureError if the first file cannot be opened."""
        super().__init__(path)
        self._rotation = rotation
        self._clock = clock
        self._head: list[bytes] = []
        self.part: Part = Part()
        self._count = 0
        self.files: list[str] = []
        self._open()

    def write(self, buffers: Sequence[Buffer]) -> None:
        raw = b"".join(buffers)
        at = begun = 0
        while at + 8 <= len(raw):
            kind = int.from_bytes(raw[at : at + 4], sys.byteorder)
            end = at + int.from_bytes(raw[at + 4 : at + 8], sys.byteorder)
            if kind in (_SECTION_HEADER, _INTERFACE):
                self._head.append(raw[at:end])
                self.part.interfaces += kind == _INTERFACE
            if kind == _ENHANCED_PACKET:
                if self._due(self._size + end - at):
                    self._write(raw[begun:at])
                    begun = at
                    self._next()
                self._packets += 1
                interface = int.from_bytes(raw[at + 8 : at + 12], sys.byteorder)
                self.part.packets[interface] = self.part.packets.get(interface, 0) + 1
            self._size += end - at
            at = end
        self._write(raw[begun:])

    def close(self) -> None:
        self._file.close()

    def forget(self) -> None:
        self._file.forget()

    def abort(self) -> None:
        super().abort()
        self._file.abort()

    def _due(self, size: int) -> bool:
        size += self.part.interfaces * _STATISTICS
        return self._rotation.due(now=self._clock(), started=self._started, size=size, packets=self._packets)

    def _next(self) -> None:
        if self.on_part_end is not None:
            self._write(b"".join(self.on_part_end(self.part)))
        self._file.close()
        self._open()
        self.part = Part(interfaces=self.part.interfaces)
        head = b"".join(self._head)
        self._size = len(head)
        self._write(head)

    def _open(self) -> None:
        now = self._clock()
        self._count += 1
        path = file_name(self.name, self._count, now)
        self._file = file_sink(path)
        self._started, self._size, self._packets = now, 0, 0
        self.files.append(path)
        while self._rotation.files and len(self.files) > self._rotation.files:
            oldest = self.files.pop(0)
            try:
                os.unlink(oldest)
            except FileNotFoundError:
                pass  # somebody else has removed it
            except OSError as error:
                raise CaptureError(
                    f"the oldest file of the ring, {oldest}, cannot be removed: {error.strerror}: keep more of them"
                ) from error

    def _write(self, raw: bytes) -> None:
        if raw:
            self._file.write([raw])
            self.written += len(raw)
