"""Where a capture goes: a file, a FIFO or named pipe, standard output, a caller's stream.

A sink belongs to one writer thread; only `abort` may be called from another one. A FIFO whose reader has stopped
reading holds up `write` until `abort`, so a capture can always be ended.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from usbip_capture.errors import CaptureError
from usbip_capture.system.private_files import check_owner, open_private
from usbip_capture.usb.urb import Buffer

if TYPE_CHECKING:
    from usbip_capture.capture.trailer import Part

#: Seconds between two looks for a reader of a FIFO, and between two looks for `abort`.
_OPEN_RETRY = 0.02
_ABORT_CHECK = 0.02
#: Below this mean size, joining buffers is cheaper than handing each to the kernel.
_JOIN_BELOW = 4096
#: A pipe that poll calls writable takes this many bytes at once. Ref: POSIX, PIPE_BUF; Linux's number.
_PIPE_BUF = getattr(select, "PIPE_BUF", 512)
#: As large as Linux lets everybody have: the reader may pause a little longer. The default is 64 KiB.
_PIPE_SIZE = 1 << 20
_NAMED_PIPE = "\\\\.\\pipe\\"

try:
    _IOV_MAX = max(os.sysconf("SC_IOV_MAX"), 16)
except (AttributeError, ValueError, OSError):
    _IOV_MAX = 16

#: The error of writing to a pipe without reader; Windows has EINVAL for it.
_READER_GONE = {errno.EPIPE, errno.ECONNRESET} | ({errno.EINVAL} if sys.platform == "win32" else set())

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another place",
    errno.EDQUOT: "your disk quota is used up: free some space or choose another place",
    errno.EACCES: "permission denied: choose a place you may write to",
    errno.EPERM: "permission denied: choose a place you may write to",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.ENOENT: "there is no such folder: create it or choose another place",
    errno.ENOTDIR: "there is no such folder: create it or choose another place",
    errno.EISDIR: "it is a folder: add a file name",
    errno.EAGAIN: "it is full and in non-blocking mode: open a blocking one",
    errno.EFBIG: "the file has become too large: choose another place or capture less",
}


class ReaderGone(CaptureError):
    """Nobody reads the capture any more: a normal end."""


class SinkAborted(CaptureError):
    """`abort` was called while the reader took nothing."""


class Sink(ABC):
    """Takes the bytes of a capture. `written` counts those that went out, for others to see progress."""

    #: Seconds without progress after which the end of a capture gives up on this sink.
    patience = 0.2
    #: What is in the current file, if there are several; None else.
    part: Part | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        #: Asked for the last blocks of a file before the next one begins.
        self.on_part_end: Callable[[Part], Sequence[Buffer]] | None = None
        self.written = 0
        self._aborted = False

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> None:
        """Write all of it. Raises ReaderGone, SinkAborted, or CaptureError with one sentence."""

    @abstractmethod
    def close(self) -> None:
        """Close what the sink has opened. Raises CaptureError if the end could not be written."""

    def forget(self) -> None:  # noqa: B027  not every sink has opened something
        """In a forked child: close what was inherited; the output, and whoever reads it, sees nothing of that."""

    def reader_gone(self) -> bool:
        """Whether it is known, without writing, that nobody reads any more."""
        return False

    def abort(self) -> None:
        """Make a `write` that waits for the reader raise SinkAborted, now or later; from any thread."""
        self._aborted = True

    def _error(self, error: OSError | ValueError) -> CaptureError:
        if isinstance(error, OSError) and error.errno in _READER_GONE:
            return ReaderGone(f"the reader of {self.name} is gone")
        return _sentence(self.name, error)


class FileSink(Sink):
    """A file for its owner's eyes only, as captures can hold keystrokes; emptied if it exists, unless `append`."""

    patience = 10.0  # a busy disk may pause for seconds

    def __init__(self, path: str, *, append: bool = False) -> None:
        super().__init__(path)
        try:
            self._fd = open_private(path, append=append)
        except (OSError, ValueError) as error:
            raise _sentence(path, error) from error
        self._begin = os.fstat(self._fd).st_size if append else 0

    def write(self, buffers: Sequence[Buffer]) -> None:
        try:
            self.written += _write_all(self._fd, buffers)
        except OSError as error:
            self._cut(buffers)
            raise self._error(error) from error

    def _cut(self, buffers: Sequence[Buffer]) -> None:
        """Take off a block that was begun and found no room, so that what came before can be read."""
        raw = b"".join(buffers)
        try:
            begun = self._begin + self.written
            room = os.lseek(self._fd, 0, os.SEEK_CUR) - begun
            whole = at = 0
            while at + 8 <= room and (at := at + int.from_bytes(raw[at + 4 : at + 8], sys.byteorder)) <= room:
                whole = at
            os.ftruncate(self._fd, begun + whole)
        except OSError:  # no file that could be cut, such as /dev/full
            pass

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:
                raise self._error(error) from error

    def forget(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PipeSink(Sink):
    """The writing end of a FIFO, from a descriptor in non-blocking mode that the sink then owns."""

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(name)
        self._fd = fd
        _enlarge(fd)

    @classmethod
    def open(cls, path: str, stop: threading.Event | None = None) -> PipeSink:
        """Wait until somebody reads the FIFO. Raises CaptureError when `stop` is set before, or it cannot be opened."""
        while True:
            try:
                check_owner(path)
                return cls(path, os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:  # that one means: no reader yet
                    raise _sentence(path, error) from error
            if stop is None:
                time.sleep(_OPEN_RETRY)
            elif stop.wait(_OPEN_RETRY):
                raise ReaderGone(f"nobody had opened {path} for reading when the capture was stopped")

    def write(self, buffers: Sequence[Buffer]) -> None:
        views = _gathered(buffers)
        while views:
            try:
                size = os.writev(self._fd, views[:_IOV_MAX])
            except BlockingIOError:
                self._wait()
                continue
            except OSError as error:
                raise self._error(error) from error
            self.written += size
            _drop_written(views, size)

    def reader_gone(self) -> bool:
        return _reader_gone(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    forget = close  # its reader sees the end when the last descriptor is closed, which is the parent's

    def _wait(self) -> None:
        """Until the reader has made room."""
        while not _writable(self._fd, _ABORT_CHECK):
            if self._aborted:
                raise SinkAborted(f"the reader of {self.name} has stopped reading")


class StreamSink(Sink):
    """Any binary stream, which stays its owner's: it is flushed but not closed.

    A pipe's reader is watched; writing to it may block beyond `abort`, for its descriptor is left as it is.
    """

    def __init__(self, stream: BinaryIO, name: str = "") -> None:
        super().__init__(name or str(getattr(stream, "name", "the stream")))
        self._stream = stream
        try:
            self._pipe = _pipe_or_none(stream.fileno())
        except (AttributeError, OSError, ValueError):
            self._pipe = -1

    def write(self, buffers: Sequence[Buffer]) -> None:
        try:
            view = memoryview(b"".join(buffers))
            while view:
                size = self._stream.write(view)
                if not isinstance(self._stream, io.RawIOBase):
                    size = len(view)  # others take all, and some return nothing
                elif size is None:
                    raise BlockingIOError(errno.EAGAIN, "non-blocking mode")
                view = view[size:]
                self.written += size
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise self._error(error) from error

    def reader_gone(self) -> bool:
        return self._pipe >= 0 and _reader_gone(self._pipe)

    def close(self) -> None:
        """The stream is not ours to close."""


class StdoutSink(Sink):
    """Standard output. In a pipeline, a reader that has stopped reading cannot hold up the end of the capture."""

    def __init__(self) -> None:
        super().__init__("standard output")
        self._fd = 1
        if os.isatty(self._fd):
            raise CaptureError("the capture is binary and standard output is a terminal: redirect it, or name a file")
        self._pipe = _pipe_or_none(self._fd)

    def write(self, buffers: Sequence[Buffer]) -> None:
        try:
            if self._pipe < 0:
                self.written += _write_all(self._fd, buffers)
            else:
                self._write_pipe(memoryview(b"".join(buffers)))
        except OSError as error:
            raise self._error(error) from error

    def reader_gone(self) -> bool:
        return self._pipe >= 0 and _reader_gone(self._pipe)

    def close(self) -> None:
        """Standard output is not ours to close."""

    def _write_pipe(self, view: memoryview) -> None:
        # Non-blocking mode would change the pipe for every process that shares it: small portions never block either.
        while view:
            while not _writable(self._fd, _ABORT_CHECK):
                if self._aborted:
                    raise SinkAborted("the reader of standard output has stopped reading")
            size = os.write(self._fd, view[:_PIPE_BUF])
            self.written += size
            view = view[size:]


def open_sink(path: str | os.PathLike[str], stop: threading.Event | None = None) -> Sink:
    """The sink for `path`: `-` is standard output, a FIFO waits for its reader, anything else is a file.

    Raises CaptureError when it cannot be opened, or when `stop` is set while nobody reads the FIFO.
    """
    name = os.fspath(path)
    if name == "-":
        return StdoutSink()
    if name.lower().startswith(_NAMED_PIPE):
        from usbip_capture.capture.named_pipe import NamedPipeSink

        try:
            return NamedPipeSink(name)
        except OSError as error:
            raise _sentence(name, error) from error
    try:
        is_fifo = stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        is_fifo = False  # opening it will raise why
    return PipeSink.open(name, stop) if is_fifo else FileSink(name)


def check_file(path: str) -> None:
    """Whether a capture could be written to the file `path`, which is left as it is.

    Raises CaptureError when it could not, and for `-`: for commands that have another use for standard output.
    """
    if path == "-":
        raise CaptureError("standard output is not for the capture here: give a file")
    if os.path.exists(path) and not os.path.isdir(path):
        if not os.access(path, os.W_OK):
            raise _sentence(path, PermissionError(errno.EACCES, "permission denied"))
        try:
            check_owner(path)
        except PermissionError as error:
            raise _sentence(path, error) from error
    else:
        FileSink(path).close()
        os.remove(path)


def _sentence(name: str, error: OSError | ValueError) -> CaptureError:
    reason = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        reason = _ADVICE.get(error.errno) or f"{os.strerror(error.errno)}: choose another place"
    return CaptureError(f"the capture cannot be written to {name}: {reason}")


def _gathered(buffers: Sequence[Buffer]) -> list[Buffer]:
    """As few buffers as it is worth, none empty."""
    if sum(map(len, buffers)) < _JOIN_BELOW * len(buffers):
        return [b"".join(buffers)]
    return [buffer for buffer in buffers if len(buffer)]


def _drop_written(views: list[Buffer], size: int) -> None:
    done = 0
    while done < len(views) and size >= len(views[done]):
        size -= len(views[done])
        done += 1
    del views[:done]
    if size:
        views[0] = memoryview(views[0])[size:]


def _write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Blocking. Returns how much that was."""
    views, total = _gathered(buffers), 0
    while views:
        size = os.writev(fd, views[:_IOV_MAX]) if hasattr(os, "writev") else os.write(fd, views[0])
        total += size
        _drop_written(views, size)
    return total


def _pipe_or_none(fd: int) -> int:
    """`fd` if it is a pipe that can be polled, else -1."""
    try:
        return fd if stat.S_ISFIFO(os.fstat(fd).st_mode) and hasattr(select, "poll") else -1
    except OSError:
        return -1


def _reader_gone(fd: int) -> bool:
    if not hasattr(select, "poll"):
        return False  # the next write will raise
    poll = select.poll()
    poll.register(fd, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _writable(fd: int, timeout: float) -> bool:
    """Whether a write will not block: there is room, or an error to be had."""
    if not hasattr(select, "poll"):
        return bool(select.select([], [fd], [], timeout)[1])
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout * 1000))


def _enlarge(fd: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except (ImportError, AttributeError, OSError):
        pass  # only Linux has it, and it may refuse
