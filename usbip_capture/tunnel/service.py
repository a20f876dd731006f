"""The tunnel: a port of this machine whose clients are those of a server that only TLS or ssh reaches."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

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

#: Clients at a time; more are refused. Each has two threads, and with ssh a process.
MAX_CLIENTS = 128
_JOIN_TIMEOUT = 5.0


class Tunnel:
    """Listens on `address`:`port` (0 chooses one) until closed; each client gets a connection to `server` of its own.

    allow: who may connect, beside this machine; needed for any address but loopback. Raises LocalProtocolError, or
    CannotListen.
    """

    def __init__(
        self,
        server: ServerAddress,
        address: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        allow: Sequence[Network] = (),
    ) -> None:
        if server.is_built_in and server.host == LOCAL:
            raise LocalProtocolError("local is this machine itself: `usbip-capture serve` lends its devices")
        rules = allowing(allow)
        check_lets_in(address, port, rules)
        self.server = server
        self._clients: dict[threading.Thread, Forwarding | None] = {}
        self._lock = threading.Lock()
        self._closing = False
        listener = listen(address, port, "the tunnel")
        self.address, self.port = listener.getsockname()[:2]
        admission = Admission(policy_of(lambda: rules), lambda: len(self._clients) >= MAX_CLIENTS)
        self._acceptor = Acceptor(listener, self._serve, "usbip-tunnel", admission)

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
            threads = dict(self._clients)
        for forwarding in threads.values():
            if forwarding is not None:
                forwarding.stop()
        for thread in threads:
            thread.join(_JOIN_TIMEOUT)

    def _serve(self, sock: socket.socket, peer: Peer) -> None:
        thread = threading.Thread(target=self._client, args=(sock, str(peer)), name="usbip-tunnel-client", daemon=True)
        with self._lock:
            self._clients[thread] = None
        try:
            thread.start()
        except BaseException:
            with self._lock:
                del self._clients[thread]
            raise

    def _client(self, sock: socket.socket, peer: str) -> None:
        try:
            self._forward(sock, peer)
        except (UsbipError, OSError, RuntimeError) as error:
            log.warning("client %s: %s", peer, one_line(str(error)))
            with suppress(OSError):
                reset_on_close(sock)
            sock.close()
        finally:
            with self._lock:
                del self._clients[threading.current_thread()]

    def _forward(self, sock: socket.socket, peer: str) -> None:
        """Until one of them ends. Raises UsbipError if the server cannot be reached."""
        set_options(sock)
        client = SocketTransport(sock, peer)
        server = self.server.open_transport()
        forwarding = Forwarding(client, server, lambda error: log.warning("client %s: %s", peer, one_line(str(error))))
        with self._lock:
            closing = self._closing
            self._clients[threading.current_thread()] = forwarding
        if closing:
            forwarding.stop()
        log.info("client %s", peer)
        try:
            forwarding.run()
        except RuntimeError:  # no thread is left
            server.close()
            raise
        log.info("client %s has left", peer)
