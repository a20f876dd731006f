"""The bytes of a recording: a file or standard input, gzip'ed or not."""

from __future__ import annotations

import os
import select
import stat
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.convert.pcap import not_a_recording, read_packets
from usbip_capture.errors import CaptureError
from usbip_capture.system.shown import one_line

if TYPE_CHECKING:
    from zlib import _Decompress as Inflater

CHUNK = 1 << 16
#: Seconds without input after which `on_idle` is called.
IDLE = 0.05
#: Seconds after which `stop` is noticed.
_STOP_CHECK = 0.2
_GZIP = b"\x1f\x8b"
# Magic numbers of pcap, with micro- and nanoseconds, in both byte orders, and of pcapng.
_BEGINNINGS = (
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\xc3\xd4",
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a",
)
#: zlib's number for a gzip header.
_GZIP_WBITS = 31


class Source:
    """Read from `path`, `-` being standard input. Raises CaptureError when it cannot be opened.

    size: of the file in bytes, 0 if there is no telling. taken: how many of them were read.
    on_idle: called when a pipe has brought nothing for IDLE seconds, once until something comes.
    stopped: `stop` was called; from then on there is nothing more to read.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else one_line(path)
        self.taken = 0
        self.stopped = False
        self.on_idle: Callable[[], None] | None = None
        try:
            self._fd = 0 if path == "-" else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            status = os.fstat(self._fd)
        except OSError as error:
            raise self._error(error) from error
        if path == "-" and os.isatty(self._fd):
            raise CaptureError("standard input is a terminal: pipe a recording of TCP in, or name a file")
        if stat.S_ISDIR(status.st_mode):
            os.close(self._fd)
            raise CaptureError(f"{self.name} is a folder: name a file of TCP packets")
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._waits = not self.size and hasattr(select, "poll")
        self._inflater: Inflater | None = None
        self._first = self._read()
        while 0 < len(self._first) < 4 and (more := self._read()):  # a pipe may bring it byte by byte
            self._first += more
        if self._first.startswith(_GZIP):
            self._inflater = zlib.decompressobj(_GZIP_WBITS)

    def read(self) -> bytes:
        """The next bytes, at most CHUNK or so; empty at the end. Raises CaptureError if they cannot be read."""
        return self._raw() if self._inflater is None else self._inflated(self._inflater)

    def check(self) -> None:
        """Raises CaptureError if this begins like no recording at all: before anything is written over."""
        if self._inflater is None and not self._first.startswith(_BEGINNINGS):
            raise CaptureError(not_a_recording(self.name, self._first))

    def link_type(self) -> int | None:
        """That of the first packet, as far as it is at hand already."""
        portions = iter(() if self._inflater else (self._first,))
        try:
            return next(read_packets(lambda: next(portions, b""), self.name))[1]
        except (StopIteration, CaptureError):
            return None

    def stop(self) -> None:
        """This is the end; from a signal handler too."""
        self.stopped = True

    def close(self) -> None:
        """Let go of the file; standard input stays open."""
        fd, self._fd = self._fd, 0
        if fd > 0:
            os.close(fd)

    def same_file(self, path: str) -> bool:
        """Whether `path`, `-` being standard output, is the file that is read here."""
        try:
            read, written = os.fstat(self._fd), os.fstat(1) if path == "-" else os.stat(path)
            return stat.S_ISREG(read.st_mode) and os.path.samestat(read, written)
        except OSError:
            return False

    def _inflated(self, inflater: Inflater) -> bytes:
        while True:
            raw = inflater.unconsumed_tail or self._raw()
            if inflater.eof:
                if not raw.startswith(_GZIP):
                    return b""  # the end, or padding
                inflater = self._inflater = zlib.decompressobj(_GZIP_WBITS)
            elif not raw:
                raise CaptureError(f"the compressed data of {self.name} is cut off")
            try:
                out = inflater.decompress(raw, CHUNK)
            except zlib.error as error:
                raise CaptureError(f"the compressed data of {self.name} is damaged: {error}") from error
            if inflater.eof:
                self._first = inflater.unused_data
            if out:
                return out

    def _raw(self) -> bytes:
        raw, self._first = self._first or self._read(), b""
        return raw

    def _read(self) -> bytes:
        try:
            if self._waits:
                self._wait()
            raw = b"" if self.stopped else os.read(self._fd, CHUNK)
        except OSError as error:
            raise self._error(error) from error
        self.taken += len(raw)
        return raw

    def _wait(self) -> None:
        """Until a pipe has something to read, or `stop` was called."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if poll.poll(IDLE * 1000):
            return
        if self.on_idle is not None:
            self.on_idle()
        while not self.stopped and not poll.poll(_STOP_CHECK * 1000):
            pass

    def _error(self, error: OSError) -> CaptureError:
        return CaptureError(f"{self.name} cannot be read: {error.strerror or error}")
