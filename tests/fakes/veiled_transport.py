"""A second transport: what an encrypted one does to those who use it, without the cryptography.

Bytes are veiled on the wire by their position in the stream, taken off the socket in records, and delivered in odd
pieces; what is left of a record stays inside, where no descriptor shows it.
"""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections import deque

from usbip_capture.net.transport import SEND_TIMEOUT, NonBlocking, Transport
from usbip_capture.relay.forwarding import Connection
from usbip_capture.relay.observation import Observation
from usbip_capture.relay.readiness import make_poller
from usbip_capture.usb.urb import Buffer

#: More than a relay asks for at once, so that something is left inside.
RECORD = 40_000
_PIECES = (1, 3, 48, 47, 4096, 30_000, 5)
_PATTERN = bytes(i * 7 + 3 & 0xFF for i in range(256)) * ((RECORD >> 8) + 2)


class _Veil:
    """Veils a stream, or lifts its veil: the same."""

    def __init__(self) -> None:
        self._at = 0

    def shown(self, data: Buffer) -> bytes:
        """The next bytes of the stream, if they are; at most a record."""
        pattern = _PATTERN[self._at & 0xFF :][: len(data)]
        return (int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")).to_bytes(len(data), "big")

    def passed(self, size: int) -> None:
        """So many of them were."""
        self._at += size


class VeiledTransport(Transport):
    """Never waits in the socket: one thread may send while another one waits to receive."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self._sock = sock
        self._inside = b""
        self._in, self._out = _Veil(), _Veil()
        self._pieces = itertools.cycle(_PIECES)
        sock.setblocking(False)

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        deadline = time.monotonic() + (3600 if timeout is None else timeout)
        while True:
            try:
                piece = self._receive(min(len(buffer), next(self._pieces)))
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
        return NonBlocking(self._sock.fileno(), self._receive, self._send, lambda: len(self._inside))

    def end_sending(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def reset_on_close(self) -> None:
        """Not by this one."""

    def close(self) -> None:
        self._sock.close()

    def _receive(self, size: int) -> bytes:
        if not self._inside:
            record = self._sock.recv(RECORD)
            self._inside = self._in.shown(record)
            self._in.passed(len(record))
        piece, self._inside = self._inside[:size], self._inside[size:]
        return piece

    def _send(self, data: Buffer) -> int:
        sent = self._sock.send(self._out.shown(memoryview(data)[:RECORD]))
        self._out.passed(sent)
        return sent

    def _wait(self, event: int, deadline: float) -> bool:
        poller = select.poll()
        poller.register(self._sock, event)
        return bool(poller.poll(max(deadline - time.monotonic(), 0) * 1000))


def forward(client: Transport, server: Transport) -> None:
    """Have the relay's forwarding connect these two, on a thread that ends with their connections."""

    def run() -> None:
        poller = make_poller()
        observation = Observation(1, client.peer, lambda *_: None, None)
        connection = Connection(
            client, server, observation, poller, deque(maxlen=0), lambda connection: None, lambda connection: None
        )
        ready = {end.fd: end.ready for end in connection.ends}
        while not connection.over:
            for fd, mask in poller.poll(-1):
                if not connection.over:
                    ready[fd](mask)

    threading.Thread(target=run, name="test-forwarding", daemon=True).start()
