"""A client of a WebSocket, for tests: blocking, with a deadline for each message."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, RejectConnection, RejectData, Request, TextMessage

_TIMEOUT = 60.0


class Refused(Exception):
    """The server has answered with another status than 101: its number."""


class WebSocket:
    """Connected. buffer: bytes that its socket holds for who does not read. accepted: what the server agreed to."""

    def __init__(self, url: str, path: str, headers: dict[str, str], buffer: int = 0) -> None:
        place = urlsplit(url)
        self.sock = socket.socket()
        self.sock.settimeout(_TIMEOUT)
        if buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            self.sock.connect((place.hostname, place.port))
            self._protocol = WSConnection(ConnectionType.CLIENT)
            extra = [(name.encode(), value.encode()) for name, value in headers.items()]
            self._send(Request(host=place.netloc, target=path, extra_headers=extra))
            self._events = self._received()
            first = next(self._events)
            if isinstance(first, RejectConnection):
                raise Refused(first.status_code)
            assert isinstance(first, AcceptConnection), first
            self.accepted = first
        except BaseException:
            self.sock.close()
            raise

    def send(self, message: object) -> None:
        self._send(TextMessage(json.dumps(message)))

    def receive(self) -> Any:
        """The next message; None when the server has closed it."""
        text = ""
        for event in self._events:
            if isinstance(event, CloseConnection):
                return None
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    return json.loads(text)
        return None

    def close(self) -> None:
        self.sock.close()

    def _send(self, event: Event) -> None:
        self.sock.sendall(self._protocol.send(event))

    def _received(self) -> Iterator[Event]:
        while True:
            data = self.sock.recv(1 << 16)
            self._protocol.receive_data(data or None)
            yield from (event for event in self._protocol.events() if not isinstance(event, RejectData))
            if not data:
                return


@contextmanager
def websocket(url: str, path: str, token: str, *, buffer: int = 0, **headers: str) -> Iterator[WebSocket]:
    """headers: further ones."""
    made = WebSocket(url, path, {"Authorization": f"Bearer {token}", **headers}, buffer)
    try:
        yield made
    finally:
        made.close()
