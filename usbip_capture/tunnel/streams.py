"""Standard input and output as one stream, whatever they are: a socket, pipes."""

from __future__ import annotations

import os
import socket
import stat

from usbip_capture.net.transport import SocketTransport
from usbip_capture.tunnel.forwarding import Stream
from usbip_capture.usb.urb import Buffer

_PEER = "standard input and output"


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
    return _Pipes(reading, writing)


class _Pipes:
    """Two descriptors. Who reads is not woken by `shut_down`."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        for fd in (reading, writing):
            os.set_blocking(fd, True)

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Waits for as long as it takes."""
        return os.readv(self._reading, [buffer])

    def send(self, parts: list[Buffer]) -> None:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(self._writing, rest) :]

    def end_sending(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def shut_down(self) -> None:
        pass

    def reset_on_close(self) -> None:
        pass

    def close(self) -> None:
        self.end_sending()
