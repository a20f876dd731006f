"""The tunnel: a port of this machine whose clients are those of a server that only TLS or ssh reaches."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from usbip_capture.access.limits import Limits, Places, Room, key_of
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import DEFAULT_PORT, format_address
from usbip_capture.net.connecting import set_options
from usbip_capture.net.listening import Acceptor, Admission, Peer, listen
from usbip_capture.net.networks import Network
from usbip_capture.net.ruling import allowing, check_lets_in, policy_of
from usbip_capture.net.transport import SocketTransport, reset_on_close
from usbip_capture.servers.address import LOCAL, ServerAddress
from usbip_capture.system.shown import one_line
from usbip_capture.tunnel.forwarding import Forwarding

log = logging.getLogger(__name__)

#: Clients at a time, by default. Each has two threads, and with ssh a process.
MAX_CLIENTS = 128
_JOIN_TIMEOUT = 5.0


class Tunnel:
    """Listens on `address`:`port` (0 chooses one) until closed; each client gets a connection to `server` of its own.

    allow: who may connect, beside this machine; needed for any address but loopback. limits: how many clients, at most
    MAX_CLIENTS by default; those without a device are given up for others, as a server does. Raises LocalProtocolError,
    or CannotListen.
    """

    def __init__(
        self,
        server: ServerAddress,
        address: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        allow: Sequence[Network] = (),
        limits: Limits | None = None,
    ) -> None:
        if server.is_built_in and server.host == LOCAL:
            raise LocalProtocolError("local is this machine itself: `usbip-capture serve` lends its devices")
        rules = allowing(allow)
        check_lets_in(address, port, rules)
        self.server = server
        self._limits = limits or Limits(max_clients=MAX_CLIENTS)
        self._clients: dict[_Client, None] = {}
        self._places: Places[_Client] = Places()
        self._lock = threading.Lock()
        self._closing = False
        listener = listen(address, port, "the tunnel")
        self.address, self.port = listener.getsockname()[:2]
        self._admission = Admission(policy_of(lambda: rules), limits=self._limits)
        self._acceptor = Acceptor(listener, self._serve, "usbip-tunnel", self._admission, self._make_room)

    @property
    def listening(self) -> str:
        """Where it listens, for people."""
        return format_address(self.address, self.port)

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._clients)

    def close(self) -> None:
        """Break all connections, stop listening. May be called again."""
        with self._lock:
            self._closing = True
        self._acceptor.close()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.stop()
        for client in clients:
            client.thread.join(_JOIN_TIMEOUT)

    def _serve(self, sock: socket.socket, peer: Peer) -> None:
        client = _Client(str(peer))
        client.thread = threading.Thread(
            target=self._attend, args=(client, sock), name="usbip-tunnel-client", daemon=True
        )
        with self._lock:
            room = self._enter(client, key_of(peer.host))
        if room.refusal:
            sock.close()
            self._admission.turn_away(peer, room.refusal)
        if room.given_up is not None:
            room.given_up.stop()

    def _enter(self, client: _Client, address: str) -> Room[_Client]:
        """Serve the client if there is room, for which another one may have to go. The lock is held."""
        self._settle()
        now = time.monotonic()
        room = self._places.room(address, now, self._limits)
        if not room.refusal:
            client.thread.start()
            if room.given_up is not None:
                self._places.give_up(room.given_up)
            self._clients[client] = None
            self._places.enter(client, address, now)
        return room

    def _settle(self) -> None:
        """Who has a device by now is given up for nobody. The lock is held."""
        for client in self._clients:
            if client.has_device:
                self._places.settle(client)

    def _make_room(self) -> None:
        """Descriptors or threads are used up: one that only holds them goes."""
        with self._lock:
            self._settle()
            longest = self._places.longest()
            if longest is not None:
                self._places.give_up(longest)
        if longest is not None:
            longest.stop()

    def _attend(self, client: _Client, sock: socket.socket) -> None:
        try:
            self._forward(client, sock)
        except (UsbipError, OSError, RuntimeError) as error:
            log.warning("client %s: %s", client.peer, one_line(str(error)))
            with suppress(OSError):
                reset_on_close(sock)
            sock.close()
        finally:
            with self._lock:  # whoever has started this thread has entered it by then
                del self._clients[client]
                self._places.leave(client)

    def _forward(self, client: _Client, sock: socket.socket) -> None:
        """Until one of them ends. Raises UsbipError if the server cannot be reached."""
        peer = client.peer
        set_options(sock)
        near, server = SocketTransport(sock, peer), self.server.open_transport()
        forwarding = Forwarding(near, server, lambda error: log.warning("client %s: %s", peer, one_line(str(error))))
        client.carried_by(forwarding)
        if self._closing:  # it may have come too late to be stopped
            client.stop()
        log.info("client %s", peer)
        try:
            forwarding.run()
        except RuntimeError:  # no thread is left
            server.close()
            raise
        log.info("client %s has left", peer)


class _Client:
    """A client, on a thread of its own. peer: who it is, for people."""

    thread: threading.Thread

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._forwarding: Forwarding | None = None  # while the server is connected to
        self._stopped = threading.Event()

    @property
    def has_device(self) -> bool:
        """Whether it has imported one."""
        return self._forwarding is not None and self._forwarding.has_imported

    def carried_by(self, forwarding: Forwarding) -> None:
        """The server is connected."""
        self._forwarding = forwarding
        if self._stopped.is_set():
            forwarding.stop()

    def stop(self) -> None:
        """End it, as soon as the server is connected at the latest. From any thread."""
        self._stopped.set()
        forwarding = self._forwarding
        if forwarding is not None:
            forwarding.stop()
