"""Where a recording is while it is used: its data in the capture, its index beside it; in memory if they are small."""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import BinaryIO, cast

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.source import Source

#: Bytes that stay in memory. More goes to a temporary file without a name, or stays in the capture, if it is a file.
_IN_MEMORY = 4 << 20


class _File:
    """A file that any thread reads and writes; it is closed when nobody has this any more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        weakref.finalize(self, file.close)

    def read(self, at: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(at)
            return self._file.read(size)

    def write(self, at: int, data: bytes) -> None:
        with self._lock:
            self._file.seek(at)
            self._file.write(data)


def _temporary() -> _File:
    return _File(cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY)))


class FileStorage:
    """For the index. Raises CaptureError: there is no room for it."""

    def __init__(self) -> None:
        self._file = _temporary()
        self._size = 0

    def append(self, data: bytes) -> int:
        at = self._size
        self.write(at, data)
        self._size += len(data)
        return at

    def read(self, at: int, size: int) -> bytes:
        return self._file.read(at, size)

    def write(self, at: int, data: bytes) -> None:
        _write(self._file, at, data)


class CaptureContent:
    """What `source` brings, to be read again: the file itself, if it is long and not packed, else a copy.

    `read` raises CaptureError: the file has changed.
    """

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._name = source.name
        self._copied = 0
        itself = None if source.unpacked or source.size <= _IN_MEMORY else source.reopened()
        self._copies = itself is None
        self._file = _temporary() if itself is None else _File(itself)

    def ended(self) -> None:
        """All of it was read: what `source` holds is not needed any more."""
        self._source = None

    def place(self, portion: bytes) -> int:
        assert self._source is not None, "it was read to its end"
        end = self._source.position
        begin = end - len(portion)
        if self._copies:
            # A portion may begin with what the one before it ended with.
            new = max(self._copied - begin, 0)
            _write(self._file, begin + new, portion[new:])
            self._copied = end
        return begin

    def read(self, at: int, size: int) -> bytes:
        try:
            found = self._file.read(at, size)
        except OSError as error:
            raise CaptureError(f"{self._name} cannot be read any more: {error.strerror or error}") from error
        if len(found) < size:
            raise CaptureError(f"{self._name} was shortened while it was in use: what it had is not there any more")
        return found


def _write(file: _File, at: int, data: bytes) -> None:
    try:
        file.write(at, data)
    except OSError as error:
        where, why = tempfile.gettempdir(), error.strerror or error
        raise CaptureError(f"the index of a capture cannot be written to {where}, {why}: set TMPDIR") from error
