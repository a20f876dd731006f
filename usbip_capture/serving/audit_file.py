"""Events in a file: a JSON object on each line, for its owner only, and older files beside it when it is long."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress

from usbip_capture.server.described import as_data
from usbip_capture.server.events import Event
from usbip_capture.system.private_files import open_private

log = logging.getLogger(__name__)

#: Bytes of a file, and how many older ones are kept: FILE.1, the latest of them, to FILE.4.
MAX_BYTES, KEPT = 16 << 20, 4
_NEW_LINE = b"\n"
_BEGINNING = b"{"  # of a line, and so of a file


class AuditFile:
    """Appends to `path`; `-` is standard output. Raises OSError, as `write` does. Not for several threads at once.

    Somebody else may move the file, or remove it: the next events go into a new one of this name.
    """

    def __init__(self, path: str, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._fd = -1
        self._regular = path != "-"
        self._rotates = True
        if path == "-":
            self._fd = sys.stdout.fileno()
        elif not _is_pipe(path):  # opening one waits for its reader
            self._open()

    def __str__(self) -> str:
        return "standard output" if self._path == "-" else self._path

    def write(self, events: Sequence[Event]) -> int:
        """How many of the first are in the file now, the whole lines. Raises OSError if not even one."""
        lines = [line_of(event) for event in events]
        self._follow(sum(map(len, lines)))
        data = b"".join(lines)
        before = self._size()
        written = os.write(self._fd, data)
        if written == len(data):
            return len(lines)
        whole = 0
        for whole, line in enumerate(lines):  # noqa: B007  the first that is not whole
            if written < len(line):
                break
            written -= len(line)
        if written:
            self._cut(before + sum(map(len, lines[:whole])), written)
        if not whole:
            raise OSError("there is no room")
        return whole

    def close(self) -> None:
        """Write no more. May be called again."""
        if self._fd >= 0 and self._path != "-":
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        _check_is_audit(self._path)
        self._fd = open_private(self._path, append=True)
        status = os.fstat(self._fd)
        self._regular = stat.S_ISREG(status.st_mode)
        if self._regular and status.st_size and not _ends_a_line(self._path):
            os.write(self._fd, _NEW_LINE)  # what a crash left is a line of its own

    def _follow(self, more: int) -> None:
        """Have the file of this name open, with room for so many bytes."""
        if self._path == "-":
            return
        if self._fd >= 0 and self._regular and not self._is_open():
            self.close()
        if self._fd < 0:
            self._open()
        size = self._size()
        if self._rotates and size and size + more > self._max_bytes:
            self.close()  # what is open cannot be renamed on every system
            self._rotate()
            self._open()

    def _is_open(self) -> bool:
        """Whether the file of this name is the one that is open."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return False

    def _rotate(self) -> None:
        try:
            for number in range(self._kept - 1, 0, -1):
                if os.path.exists(f"{self._path}.{number}"):
                    os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            os.replace(self._path, f"{self._path}.1")
        except OSError as error:  # better one that is too long than none
            self._rotates = False
            log.warning("%s is long and cannot be renamed, it goes on: %s", self._path, error.strerror or error)

    def _size(self) -> int:
        return os.fstat(self._fd).st_size if self._regular else 0

    def _cut(self, size: int, part: int) -> None:
        """Remove a part of a line at the end, or end the line where that cannot be."""
        try:
            if self._regular and self._size() == size + part:
                os.ftruncate(self._fd, size)
            else:
                os.write(self._fd, _NEW_LINE)
        except OSError:  # as full as it was
            pass


def _check_is_audit(path: str) -> None:
    """Raises FileExistsError for a file that has something else in it."""
    with suppress(FileNotFoundError):
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                if file.read(1) not in (b"", _BEGINNING):
                    raise FileExistsError(errno.EEXIST, "it is another file, and not an audit: choose another name")


def line_of(event: Event) -> bytes:
    """The line of an event. ASCII only: what strangers sent is escaped in it."""
    return json.dumps(as_data(event)).encode("ascii") + _NEW_LINE


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _ends_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == _NEW_LINE
