"""Standard input and output as one stream, whatever they are: a socket, pipes."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import threading
from contextlib import suppress

from usbip_capture.net.transport import SocketTransport
from usbip_capture.system.durations import milliseconds
from usbip_capture.tunnel.forwarding import Stream
from usbip_capture.usb.urb import Buffer

_PEER = "standard input and output"
#: Bytes that are read at a time where a thread reads.
_SIZE = 64 << 10


def standard_streams() -> Stream:
    """What the program was started with as 0 and 1, where nothing else is read or printed from now on."""
    reading, writing = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nowhere, fd)
    os.close(nowhere)
    if stat.S_ISSOCK(os.fstat(reading).st_mode) and os.path.sameopenfile(reading, writing):
        os.close(writing)
        return SocketTransport(socket.socket(fileno=reading), _PEER)
    return pipes(reading, writing)


def pipes(reading: int, writing: int) -> Stream:
    """Two descriptors, of whatever kind, which are its own from now on. When one way has ended, so has the other."""
    return _PolledPipes(reading, writing) if hasattr(select, "poll") else _Pipes(reading, writing)


class _PolledPipes:
    """Where descriptors can be waited for: who reads or writes is woken by the end of either.

    They stay blocking, as that is a property they share with whoever has started the program.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._wake, self._woken = socket.socketpair()
        self._to_read, self._to_write = select.poll(), select.poll()
        self._to_read.register(reading, select.POLLIN)
        self._to_write.register(writing, select.POLLOUT)
        for poller in (self._to_read, self._to_write):
            poller.register(self._woken, select.POLLIN)
        for fd in (reading, writing):
            os.set_blocking(fd, True)

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Returns 0 at the end of either way. Raises OSError, TimeoutError."""
        ready = self._to_read.poll(None if timeout is None else milliseconds(timeout))
        if not ready:
            raise TimeoutError
        return 0 if self._is_woken(ready) else os.readv(self._reading, [buffer])

    def send(self, parts: list[Buffer]) -> None:
        """Raises OSError, also if it is shut down meanwhile."""
        for part in parts:
            rest = memoryview(part)
            while rest:
                if self._is_woken(self._to_write.poll()):
                    raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
                # A pipe that can be written to takes so many bytes without waiting.
                rest = rest[os.write(self._writing, rest[: select.PIPE_BUF]) :]

    def end_sending(self) -> None:
        """Not while a thread sends. Nothing is read any more: a pipe does not have its writer end as well."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
        self.shut_down()

    def shut_down(self) -> None:
        with suppress(OSError):  # it is closed
            self._wake.send(b"\0")  # which stays there: each who waits sees it

    def reset_on_close(self) -> None:
        """A pipe cannot be reset."""

    def close(self) -> None:
        self.end_sending()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
        self._wake.close()
        self._woken.close()

    def _is_woken(self, ready: list[tuple[int, int]]) -> bool:
        return any(fd == self._woken.fileno() for fd, _ in ready)


class _Pipes:
    """Where only sockets can be waited for, as on Windows: a thread reads, which stays until the program ends.

    Who writes is not woken.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._writing = writing
        self._read, ours = socket.socketpair()
        threading.Thread(target=_read_on, args=(reading, ours), name="usbip-tunnel-stdin", daemon=True).start()

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Returns 0 at the end of either way. Raises OSError, TimeoutError."""
        self._read.settimeout(timeout)
        return self._read.recv_into(buffer)

    def send(self, parts: list[Buffer]) -> None:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(self._writing, rest) :]

    def end_sending(self) -> None:
        """As above."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
        self.shut_down()

    def shut_down(self) -> None:
        with suppress(OSError):  # it is closed, or has ended
            self._read.shutdown(socket.SHUT_RDWR)

    def reset_on_close(self) -> None:
        """A pipe cannot be reset."""

    def close(self) -> None:
        self.end_sending()
        self._read.close()


def _read_on(reading: int, to: socket.socket) -> None:
    """Until either has ended."""
    with to, suppress(OSError):
        while data := os.read(reading, _SIZE):
            to.sendall(data)
