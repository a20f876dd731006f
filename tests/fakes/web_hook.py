"""A server of the web as a hook meets it: each request is kept, and answered as a test likes."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class WebHook:
    """requests: head and body of each. answer: makes that of the number of a request, from 0 on. context: for TLS."""

    def __init__(self, answer: Callable[[int], bytes] | None = None, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.came = threading.Condition()
        self.hold = threading.Event()  # set: answers are sent
        self.hold.set()
        self._answer = answer or (lambda number: b"HTTP/1.1 204 No Content\r\n\r\n")
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self, count: int) -> list[tuple[str, Any]]:
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= count, 30), self.requests
            return list(self.requests)

    def close(self) -> None:
        self.hold.set()
        with suppress(OSError):  # not on every system
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            with suppress(OSError):  # the other side has left
                self._serve(self._context.wrap_socket(sock, server_side=True) if self._context is not None else sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = file.readline()
                if not line:
                    return
                head += line
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
            body = json.loads(file.read(length))
            with self.came:
                number = len(self.requests)
                self.requests.append((head.decode("ascii"), body))
                self.came.notify_all()
            self.hold.wait(30)
            sock.sendall(self._answer(number))


@contextmanager
def web_hook(answer: Callable[[int], bytes] | None = None, context: ssl.SSLContext | None = None) -> Iterator[WebHook]:
    made = WebHook(answer, context)
    try:
        yield made
    finally:
        made.close()
