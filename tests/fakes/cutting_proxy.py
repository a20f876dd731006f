"""A TCP proxy that cuts a connection after a given byte of what the server sends, or keeps the rest to itself."""

from __future__ import annotations

import socket
import threading


class CuttingProxy:
    """Listens on this machine's loopback and leads to another port of it. port: where it listens."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._left: int | None = None  # bytes that the server may still send; None: as many as it likes
        self._closing = True
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.cut = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    def arm(self, count: int, *, close: bool = True) -> None:
        """Let `count` more bytes of the server through; then end the connections, or let nothing through any more."""
        self.cut.clear()
        with self._lock:
            self._left, self._closing = count, close

    def disarm(self) -> None:
        """End the connections that there are; new ones are whole."""
        with self._lock:
            self._left = None
            sockets, self._sockets = self._sockets, []
            threads, self._threads = self._threads, []
        for sock in sockets:
            _end(sock)
        for thread in threads:
            thread.join()
        for sock in sockets:
            sock.close()

    def close(self) -> None:
        _end(self._listener)
        self._acceptor.join()
        self._listener.close()
        self.disarm()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            ways = ((client, server, False), (server, client, True))
            threads = [threading.Thread(target=self._forward, args=way, name="proxy", daemon=True) for way in ways]
            with self._lock:
                self._sockets += [client, server]
                self._threads += threads
                for thread in threads:
                    thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                passed = self._allowed(data) if counted else data
                sink.sendall(passed)
                if len(passed) < len(data):
                    self.cut.set()
                    if not self._closing:
                        return
                    break
        except OSError:
            pass
        _end(source)
        _end(sink)

    def _allowed(self, data: bytes) -> bytes:
        """What of it may pass."""
        with self._lock:
            if self._left is None:
                return data
            passed = data[: self._left]
            self._left -= len(passed)
            return passed


def _end(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
