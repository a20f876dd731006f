"""Where stored captures go: files, as long as there is room for them, of which each can be read at any moment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from usbip_capture.capture.files import RotatingSink
from usbip_capture.capture.rotation import Rotation
from usbip_capture.capture.sinks import FileSink, ReaderGone
from usbip_capture.errors import CaptureError
from usbip_capture.records.pcapng import ENHANCED_PACKET
from usbip_capture.usb.urb import Buffer

#: Bytes of the head of a block, and of the shortest one. Ref: draft-ietf-opsawg-pcapng, 3.1
_HEAD, _SHORTEST = 8, 12
#: Bytes that are read at a time.
_PIECE = 256 << 10


class LimitReached(ReaderGone):
    """The capture is as long as it was to be: a normal end."""


class Room:
    """Bytes that all stored captures together may take: `limit`, 0 for any number. Threads may share it."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}
        self._total = 0

    @property
    def used(self) -> int:
        """What is taken now."""
        return self._total

    def take(self, owner: str, size: int) -> int:
        """Take so many bytes more, or those that are left; how many these are."""
        with self._lock:
            if self.limit:
                size = max(min(size, self.limit - self._total), 0)
            self._set(owner, self._taken.get(owner, 0) + size)
            return size

    def set(self, owner: str, size: int) -> None:
        """So much is taken by `owner` now, whether there is room for it or not."""
        with self._lock:
            self._set(owner, size)

    def reserve(self, owner: str, size: int) -> None:
        """Take all of so many bytes. Raises CaptureError if there are less."""
        with self._lock:
            if self.limit and self._total + size > self.limit:
                raise CaptureError(self.sentence)
            self._set(owner, size)

    @property
    def sentence(self) -> str:
        """That there is no more room, and what to do."""
        return (
            f"the captures of this server may take {self.limit / 1_000_000:g} MB together, and there is no room for "
            "more: delete some of them, or raise captures-size"
        )

    def _set(self, owner: str, size: int) -> None:
        self._total += size - self._taken.pop(owner, 0)
        if size:
            self._taken[owner] = size


class StoredFile(FileSink):
    """One file, of at most max_bytes, 0 without limit. owner: whose room it takes. packets: in it. Raises CaptureError.

    `write` raises LimitReached when that is used up, CaptureError if it is the room of all.
    """

    def __init__(self, path: str, room: Room, owner: str, max_bytes: int = 0) -> None:
        super().__init__(path)
        self.files = [path]
        self.packets = 0
        self._room = room
        self._owner = owner
        self._max_bytes = max_bytes

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.written

    def write(self, buffers: Sequence[Buffer]) -> None:
        raw = b"".join(buffers)
        size = len(raw)
        if self._max_bytes:
            size = min(size, max(self._max_bytes - self.written, 0))
        taken = self._room.take(self._owner, size)
        whole, packets = _whole(raw, taken)
        before = self.written
        try:
            super().write([raw[:whole]])
        except CaptureError:
            self.packets += _whole(raw, os.path.getsize(self.name) - before)[1]  # what has found room
            raise
        finally:
            self._room.set(self._owner, self.written)
        self.packets += packets
        if taken < size:
            raise CaptureError(self._room.sentence)
        if size < len(raw):
            raise LimitReached(f"it has {self._max_bytes} bytes, as it was to have at most")


class StoredRing(RotatingSink):
    """A ring of so many files, of max_bytes each. packets, size: in the files that are kept. Raises CaptureError."""

    def __init__(self, path: str, max_bytes: int, files: int) -> None:
        self._ended: dict[str, tuple[int, int]] = {}  # of the files before the current one: packets, bytes
        super().__init__(path, Rotation(size=max_bytes, files=files))

    @property
    def packets(self) -> int:
        """In the files that are kept."""
        return self._packets + sum(packets for packets, _ in self._ended.copy().values())

    @property
    def size(self) -> int:
        """Bytes of these files."""
        return self._size + sum(size for _, size in self._ended.copy().values())

    def write(self, buffers: Sequence[Buffer]) -> None:
        try:
            super().write(buffers)
        except CaptureError:
            with suppress(CaptureError):  # not all of what was counted has found room
                self._packets = sum(_whole(piece, len(piece))[1] for piece in whole_blocks(self.files[-1]))
            raise

    def _next(self) -> None:
        current, packets = self.files[-1], self._packets
        super()._next()
        self._ended[current] = packets, os.path.getsize(current)
        self._ended = {path: known for path, known in self._ended.items() if path in self.files}


def whole_blocks(path: str) -> Iterator[bytes]:
    """What a capture file has so far, without a block that is only begun: of one that is written, or was cut off.

    A file that is gone has nothing. Raises CaptureError if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            rest = b""
            while piece := file.read(_PIECE):
                rest += piece
                whole, _ = _whole(rest, len(rest))
                if whole:
                    yield rest[:whole]
                    rest = rest[whole:]
                elif len(rest) >= _HEAD and not _is_length(int.from_bytes(rest[4:8], sys.byteorder)):
                    return
    except FileNotFoundError:
        return
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from error


def _whole(raw: bytes, size: int) -> tuple[int, int]:
    """Of the first `size` bytes: how many are whole blocks, and how many packets these have."""
    at = packets = 0
    while at + _HEAD <= size:
        length = int.from_bytes(raw[at + 4 : at + 8], sys.byteorder)
        if not _is_length(length) or at + length > size:
            break
        packets += int.from_bytes(raw[at : at + 4], sys.byteorder) == ENHANCED_PACKET
        at += length
    return at, packets


def _is_length(length: int) -> bool:
    return length >= _SHORTEST and not length % 4
