"""What the transports of the tests have in common: nothing waits in the socket, so that two threads can use it."""

from __future__ import annotations

import select
import socket
import time
from abc import abstractmethod

from usbip_capture.net import transport as net
from usbip_capture.net.transport import NonBlocking, Transport
from usbip_capture.usb.urb import Buffer

SEND_TIMEOUT = net.SEND_TIMEOUT


class PolledTransport(Transport):
    """Over a non-blocking socket, which is its own from now on."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self._sock = sock
        self._resets = False
        sock.setblocking(False)

    @abstractmethod
    def _receive(self, size: int) -> bytes:
        """As `NonBlocking.receive`."""

    @abstractmethod
    def _send(self, data: Buffer) -> int:
        """As `NonBlocking.send`."""

    @abstractmethod
    def _pending(self) -> int:
        """As `NonBlocking.pending`."""

    def _most(self) -> int:
        """How many bytes are asked for at once."""
        return 1 << 20

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        deadline = time.monotonic() + (3600 if timeout is None else timeout)
        while True:
            try:
                piece = self._receive(min(len(buffer), self._most()))
            except BlockingIOError:
                if not self._wait(select.POLLIN, deadline):
                    raise TimeoutError from None
            else:
                buffer[: len(piece)] = piece
                return len(piece)

    def send(self, parts: list[Buffer]) -> None:
        rest = memoryview(b"".join(parts))
        while rest:
            try:
                rest = rest[self._send(rest) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, time.monotonic() + SEND_TIMEOUT):
                    raise TimeoutError from None

    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        return self._send(b"".join(parts))

    def wait_to_send(self, timeout: float) -> bool:
        return self._wait(select.POLLOUT, time.monotonic() + timeout)

    def nonblocking(self) -> NonBlocking:
        return NonBlocking(self._sock.fileno(), self._receive, self._send, self._pending)

    def end_sending(self) -> None:
        socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def shut_down(self) -> None:
        net.shut_down(self._sock, resets=self._resets)

    def reset_on_close(self) -> None:
        self._resets = True
        net.reset_on_close(self._sock)

    def close(self) -> None:
        self._sock.close()

    def _wait(self, event: int, deadline: float) -> bool:
        poller = select.poll()
        poller.register(self._sock, event)
        return bool(poller.poll(max(deadline - time.monotonic(), 0) * 1000))
