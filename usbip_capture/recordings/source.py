"""Where a capture comes from: a file, a named pipe or standard input, which may be live."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.stream import Stream
from usbip_capture.system.shown import one_line

_CHUNK = 1 << 20
#: Seconds without input after which `on_idle` is called.
IDLE = 0.05
#: Seconds after which `stop` is noticed.
_STOP_CHECK = 0.2


def shown(path: str | os.PathLike[str]) -> str:
    """A file's name as it may be printed, whatever bytes it is made of."""
    return one_line(os.fsencode(path).decode(errors="backslashreplace"))


class Source(Stream):
    """Read from `path`, `-` being standard input, at most `chunk` bytes at a time. Raises CaptureError if it cannot be.

    size: of the file in bytes, 0 if it is not known. taken: how many of them were read.
    on_idle: called when a pipe has brought nothing for IDLE seconds, once until something comes.
    stopped: `stop` was called; from then on there is nothing more to read.
    """

    def __init__(self, path: str | os.PathLike[str], *, chunk: int = _CHUNK) -> None:
        standard_input = os.fspath(path) == "-"
        name = "standard input" if standard_input else shown(path)
        self.taken = 0
        self.stopped = False
        self.on_idle: Callable[[], None] | None = None
        self._chunk = chunk
        self._path = path
        if standard_input and (sys.stdin is None or os.isatty(0)):
            state = "closed" if sys.stdin is None else "a terminal"
            raise CaptureError(f"standard input is {state}: give the capture's name, or pipe the capture in")
        self._fd = -1
        try:
            self._fd = 0 if standard_input else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            status = os.fstat(self._fd)
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            self._waits = not self.size and hasattr(select, "poll")
            super().__init__(name, self._read, chunk)
        except (OSError, ValueError) as error:
            self.close()
            raise CaptureError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def stop(self) -> None:
        """This is the end; from a signal handler too."""
        self.stopped = True

    def close(self) -> None:
        """Close the file; standard input stays open."""
        fd, self._fd = self._fd, 0
        if fd > 0:
            os.close(fd)

    def reopened(self) -> BinaryIO | None:
        """The same file, to be read at any place; None if it cannot be, as standard input."""
        try:
            file = open(self._path, "rb", buffering=0)  # noqa: SIM115 (the caller's)
        except OSError:
            return None
        if os.path.samestat(os.fstat(file.fileno()), os.fstat(self._fd)):
            return file
        file.close()
        return None

    def same_file(self, path: str) -> bool:
        """Whether `path`, `-` being standard output, is the file that is read here."""
        try:
            read, written = os.fstat(self._fd), os.fstat(1) if path == "-" else os.stat(path)
            return stat.S_ISREG(read.st_mode) and os.path.samestat(read, written)
        except OSError:
            return False

    def _read(self) -> bytes:
        if self._waits:
            self._wait()
        raw = b"" if self.stopped else os.read(self._fd, self._chunk)
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
