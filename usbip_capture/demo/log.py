"""The log of the demo device, sent as ESP32 USB/IP bridges send theirs: RFC 5424, each message with its octet count and
an LF, stamped with the uptime on a fake date. Who connects gets the lines from then on.

Ref: RFC 5424, 6; RFC 6587, 3.4.1
"""

from __future__ import annotations

import socket
import threading
import time

from usbip_capture.net import connecting as net
from usbip_capture.net import listening

#: As many as the bridges have; a further one is closed at once.
MAX_CLIENTS = 4
_SEVERITIES = {"E": 3, "W": 4, "I": 6, "D": 7}
_USER = 1
#: Bytes that wait for a client that reads slowly; further lines are left out.
_MAX_UNSENT = 32 << 10


class DemoLog:
    """Sends lines to all clients, without ever waiting for one."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, bytes] = {}  # what is not sent yet
        self._closed = False
        self._listeners: list[socket.socket] = []
        self._acceptors: list[listening.Acceptor] = []
        self.admission = listening.Admission(full=lambda: len(self._clients) >= MAX_CLIENTS)

    def write(self, letter: str, tag: str, text: str) -> None:
        """One line, `letter` being ESP-IDF's: E, W, I or D."""
        with self._lock:
            # Who has connected before this line gets it, though our thread may not have accepted them yet.
            for listener in list(self._listeners):
                self._take_waiting(listener)
            if not self._clients:
                return
            uptime_ms = int((time.monotonic() - self._started) * 1000)
            seconds, ms = divmod(uptime_ms, 1000)
            stamp = time.strftime("2000-01-01T%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"
            priority = _USER << 3 | _SEVERITIES[letter]
            message = f"<{priority}>1 {stamp} demo {tag} - - - {letter} ({uptime_ms}) {tag}: {text}\n".encode()
            frame = b"%d %s" % (len(message), message)
            for client in list(self._clients):
                self._send(client, frame)

    def serve_socket(self, client: socket.socket) -> None:
        """Send the lines to this one too, if there is room for it; the socket is the log's from now on."""
        self._accepted(client, listening.Peer.of(client))

    def connect(self) -> socket.socket:
        """A connection within this process."""
        ours, theirs = socket.socketpair()
        self.serve_socket(theirs)
        return ours

    def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept clients; the address and port that are really used. Raises CannotListen."""
        listener = listening.listen(address, port, "the demo's log", backlog=2)
        host, bound = listener.getsockname()[:2]
        acceptor = listening.Acceptor(listener, self._accepted, "usbip-demo-log")
        with self._lock:
            self._listeners.append(listener)
            self._acceptors.append(acceptor)
        return host, bound

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed = True
            self._listeners.clear()
            acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.close()
        with self._lock:
            clients = list(self._clients)
            self._clients.clear()
        for client in clients:
            client.close()

    def _take_waiting(self, listener: socket.socket) -> None:
        """Accept all who have connected. The lock is held."""
        try:
            while True:
                client, address = listener.accept()
                self._serve(client, listening.Peer.of(client, address))
        except OSError:  # nobody else waits, or no descriptor is left: then no log for others
            pass

    def _accepted(self, client: socket.socket, peer: listening.Peer) -> None:
        with self._lock:
            self._serve(client, peer)

    def _serve(self, client: socket.socket, peer: listening.Peer) -> None:
        if self._closed or not self.admission.admits(peer):
            client.close()
            return
        try:
            net.set_options(client)
            client.setblocking(False)
        except OSError:  # it has left
            client.close()
            return
        self._clients[client] = b""

    def _send(self, client: socket.socket, frame: bytes) -> None:
        unsent = self._clients[client]
        if len(unsent) <= _MAX_UNSENT:
            unsent += frame
        try:
            sent = client.send(unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            del self._clients[client]
            client.close()
            return
        self._clients[client] = unsent[sent:]
