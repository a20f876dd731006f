"""`relay.forwarding` with a transport that has bytes inside which no descriptor shows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.builders.usbip_sessions import imported
from tests.fakes.veiled_transport import VeiledTransport, forward
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import NonBlocking, SocketTransport
from usbip_capture.relay.gate import Gate
from usbip_capture.relay.ruling import relay_rules
from usbip_capture.usb.urb import Buffer

MESSAGE = bytes(range(256)) * 8192
TIMEOUT = 30.0


class Unpacking(VeiledTransport):
    """A byte on the wire is a whole message inside."""

    def _receive(self, size: int) -> bytes:
        if not self._inside and self._sock.recv(1):
            self._inside = MESSAGE
        piece, self._inside = self._inside[:size], self._inside[size:]
        return piece


class Taker(SocketTransport):
    """Takes all that it is to send at once, and keeps it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "the server")
        self.taken = b""
        self.all = threading.Event()

    def nonblocking(self) -> NonBlocking:
        own = super().nonblocking()
        return NonBlocking(own.fileno, own.receive, self._take, own.pending)

    def _take(self, data: Buffer) -> int:
        self.taken += data
        if len(self.taken) >= len(MESSAGE):
            self.all.set()
        return len(data)


@pytest.fixture
def client() -> Iterator[Unpacking]:
    """A message has come, and nothing comes after it."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(b"x")
        yield Unpacking(ours, "the client")


def test_all_that_is_inside_is_forwarded_at_once(client: Unpacking) -> None:
    near, far = socket.socketpair()
    with far:
        taker = Taker(near)
        forward(client, taker)
        assert taker.all.wait(TIMEOUT)
        assert taker.taken == MESSAGE


def test_the_rest_is_forwarded_when_a_slow_receiver_has_taken_what_was_before_it(client: Unpacking) -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with far:
        forward(client, SocketTransport(near, "the server"))
        far.settimeout(TIMEOUT)
        got = b""
        while len(got) < len(MESSAGE):
            got += far.recv(1 << 20)
        assert got == MESSAGE


def test_what_is_inside_behind_an_import_is_forwarded_when_that_is_granted() -> None:
    """Both sides have sent all in one record: the descriptors have nothing more to report."""
    outside, between = socket.socketpair()
    near, far = socket.socketpair()
    peer, rules = Peer(), relay_rules(deny=["any 1-9"])
    with outside, far:
        client, server = VeiledTransport(outside, "the relay"), VeiledTransport(far, "the relay")
        (_, request), (_, reply) = imported()
        client.send([request + MESSAGE[:4000]])
        forward(
            VeiledTransport(between, "the client"),
            VeiledTransport(near, "the server"),
            lambda connection, soon: Gate(connection, rules, peer, lambda peer, reason: None, soon),
        )
        assert received(server, len(request)) == request
        server.send([reply + MESSAGE[:5000]])
        assert received(client, len(reply) + 5000) == reply + MESSAGE[:5000]
        assert received(server, 4000) == MESSAGE[:4000]


def received(transport: VeiledTransport, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += transport.receive(size - len(data), TIMEOUT) or pytest.fail("it has ended")
    return data
