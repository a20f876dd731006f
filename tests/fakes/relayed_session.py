"""Both ends of a connection through a relay in the hands of the test: what a client sends, and what a server does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.builders.tcp_recording import CLIENT, Turn
from tests.fakes.scripted_server import read_exactly
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.access.limits import Limits
from usbip_capture.access.rules import AccessRules
from usbip_capture.relay.relay import Relay
from usbip_capture.servers.address import ServerAddress

TIMEOUT = 30.0


class Ends:
    """A listener that plays the server, a relay to it, and pairs of sockets: (client's, server's)."""

    def __init__(self, capture: Path | None = None, rules: AccessRules | None = None) -> None:
        self._stack = ExitStack()
        self.listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(TIMEOUT)
        server = ServerAddress("127.0.0.1", self.listener.getsockname()[1])
        self.relay = Relay(server, port=0, rules=rules, limits=Limits(connections_per_second=0))
        self._stack.callback(self.relay.close)
        self.writer: PcapWriter | None = None
        self._tap = None
        if capture is not None:
            self.writer = self._stack.enter_context(PcapWriter(capture))
            self._tap = self.relay.capture(self.writer)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """A client, and what the server sees of it."""
        client = socket.create_connection(("127.0.0.1", self.relay.port), TIMEOUT)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stack.enter_context(client)
        server, _ = self.listener.accept()
        server.settimeout(TIMEOUT)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stack.enter_context(server)
        return client, server

    def wait_gone(self, count: int = 0) -> None:
        """Until so many clients are left."""
        wait_until("the relay lets go", lambda: len(self.relay.clients) == count and self.relay.busy == bool(count))

    def finish(self) -> None:
        """Complete the capture."""
        if self._tap is not None:
            self.relay.end_capture(self._tap)
            self._tap = None

    def close(self) -> None:
        self.finish()
        self._stack.close()


@contextmanager
def ends(capture: Path | None = None, rules: AccessRules | None = None) -> Iterator[Ends]:
    with closing(Ends(capture, rules)) as found:
        yield found


def play(client: socket.socket, server: socket.socket, turns: Iterable[Turn], chunk: int) -> None:
    """Send it turn by turn, `chunk` bytes at a time; what arrives must be what was sent."""
    for side, data in turns:
        source, target = (client, server) if side == CLIENT else (server, client)
        thread = threading.Thread(target=_send, args=(source, data, chunk))
        thread.start()
        assert read_exactly(target, len(data)) == data
        thread.join()


def _send(sock: socket.socket, data: bytes, chunk: int) -> None:
    for at in range(0, len(data), chunk):
        sock.sendall(data[at : at + chunk])
