"""A capture's way out through a connected socket."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence

from usbip_capture.capture.sinks import ReaderGone, Sink, SinkAborted
from usbip_capture.usb.urb import Buffer

#: Seconds between two looks for `abort`.
_ABORT_CHECK = 0.02
_JOIN_BELOW = 64 << 10


class SocketSink(Sink):
    """Writes to `sock`, which stays its owner's but is shut down at the end; a reader that is slow can be given up."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(name)
        self._sock = sock
        sock.setblocking(False)

    def write(self, buffers: Sequence[Buffer]) -> None:
        small: list[Buffer] = []
        for buffer in buffers:
            if len(buffer) < _JOIN_BELOW:
                small.append(buffer)
                continue
            self._send(b"".join(small))
            small = []
            self._send(buffer)
        self._send(b"".join(small))

    def _send(self, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            try:
                size = self._sock.send(view)
            except BlockingIOError:
                self._wait()
                continue
            except OSError as error:
                raise ReaderGone(f"the reader of {self.name} is gone") from error
            self.written += size
            view = view[size:]

    def _wait(self) -> None:
        while not select.select([], [self._sock], [], _ABORT_CHECK)[1]:
            if self._aborted:
                raise SinkAborted(f"the reader of {self.name} has stopped reading")

    def close(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already

    def forget(self) -> None:
        self._sock.close()  # not shut down: that would end the parent's connection too
