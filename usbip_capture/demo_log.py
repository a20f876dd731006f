"""The log of the demo device, sent as ESP32 USB/IP bridges send theirs: RFC 5424, each message with its octet count and
an LF, stamped with the uptime on a fake date. Who connects gets the lines from then on.

Ref: RFC 5424, 6; RFC 6587, 3.4.1
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time

from usbip_capture import net
from usbip_capture.errors import CaptureError

DEFAULT_PORT = 1514
#: As many as the bridges have; a further one is closed at once.
MAX_CLIENTS = 4
_SEVERITIES = {"E": 3, "W": 4, "I": 6, "D": 7}
_USER = 1
#: Bytes that wait for a client that reads slowly; further lines are left out.
_MAX_UNSENT = 32 << 10
#: Seconds for a thread to end; where shutting a listener down does not wake it, it is left behind.
_END_TIMEOUT = 1.0


class DemoLog:
    """Takes lines and hands them to all clients, without ever waiting for one."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, bytes] = {}  # what is not sent yet
        self._listeners: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def say(self, letter: str, tag: str, text: str) -> None:
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
        """Send the lines to this one too; the socket is the log's from now on."""
        with self._lock:
            self._serve(client)

    def connect(self) -> socket.socket:
        """A connection within this process."""
        ours, theirs = socket.socketpair()
        self.serve_socket(theirs)
        return ours

    def listen(self, address: str, port: int) -> tuple[str, int]:
        """Accept clients; the address and port that are really used. Raises CaptureError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, port), family=family, backlog=2)
        except OSError as error:
            reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise CaptureError(f"cannot offer the log on {address} port {port}: {reason}: choose another") from error
        listener.setblocking(False)
        with self._lock:
            self._listeners.append(listener)
        thread = threading.Thread(target=self._accept, args=(listener,), name="usbip-demo-log", daemon=True)
        self._threads.append(thread)
        thread.start()
        host, bound = listener.getsockname()[:2]
        return host, bound

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            sockets = [*self._listeners, *self._clients]
            self._listeners.clear()
            self._clients.clear()
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # the other side was quicker
                pass
        # Their sockets' numbers must not belong to others while they still wait for them.
        for thread in self._threads:
            thread.join(_END_TIMEOUT)
        for sock in sockets:
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                select.select([listener], [], [])
            except (OSError, ValueError):  # closed
                return
            with self._lock:
                if not self._take_waiting(listener):
                    return

    def _take_waiting(self, listener: socket.socket) -> bool:
        """Accept all who have connected; False if it can accept nobody any more. The lock is held."""
        try:
            while listener in self._listeners:
                self._serve(listener.accept()[0])
        except BlockingIOError:
            return True
        except OSError:  # closed, or no descriptor is left: then no log for others
            pass
        return False

    def _serve(self, client: socket.socket) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            client.close()
            return
        net.set_options(client)
        client.setblocking(False)
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
