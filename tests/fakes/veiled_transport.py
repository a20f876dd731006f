"""A second transport: what an encrypted one does to those who use it, without the cryptography.

Bytes are veiled on the wire by their position in the stream, taken off the socket in records, and delivered in odd
pieces; what is left of a record stays inside, where no descriptor shows it.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from tests.fakes.polled_transport import PolledTransport
from usbip_capture.net.transport import Transport
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


class VeiledTransport(PolledTransport):
    """Its peer has to be one, too."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        super().__init__(sock, peer)
        self._inside = b""
        self._in, self._out = _Veil(), _Veil()
        self._pieces = itertools.cycle(_PIECES)

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

    def _pending(self) -> int:
        return len(self._inside)

    def _most(self) -> int:
        return next(self._pieces)


Call: TypeAlias = Callable[[], None]


def forward(
    client: Transport,
    server: Transport,
    with_gate: Callable[[Connection, Callable[[Call], None]], object] = lambda connection, soon: None,
) -> None:
    """Have the relay's forwarding connect these two, on a thread that ends with their connections.

    with_gate: called with the connection, and with what has something called soon on that thread.
    """

    def run() -> None:
        poller = make_poller()
        observation = Observation(1, client.peer, lambda *_: None, None)
        connection = Connection(
            client, server, observation, poller, deque(maxlen=0), lambda connection: None, lambda connection: None
        )
        calls: deque[Call] = deque()
        with_gate(connection, calls.append)
        ready = {end.fd: end.ready for end in connection.ends}
        while not connection.over:
            for fd, mask in poller.poll(-1):
                if not connection.over:
                    ready[fd](mask)
            while calls:
                calls.popleft()()

    threading.Thread(target=run, name="test-forwarding", daemon=True).start()
