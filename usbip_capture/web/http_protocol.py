"""uvicorn's HTTP, for strangers: one that does not send its request in time leaves its place to others.

Nor do many of one address keep others out, or take the descriptors that devices and their clients need.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from usbip_capture.access.limits import Waiting, key_of, longest_of_most
from usbip_capture.system.descriptors import most_descriptors

#: Seconds for the whole head of a request, from the connection on, or from the first byte of a further one.
HEAD_TIMEOUT = 10.0
#: Connections at a time; and of the descriptors that this process may have, the part for them.
_MOST, _PART = 1000, 4


class BoundedProtocol(H11Protocol):
    """Ends a connection that does not send a request within HEAD_TIMEOUT.

    When there are too many, one that gets no answer at that moment leaves: who waits longest of the address that has
    most, as at the server of devices.
    """

    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """The first request is awaited from now on."""
        super().connection_made(transport)
        _send_at_once(transport.get_extra_info("socket"))
        self._since = self.loop.time()
        self._await_request()
        if len(self.connections) > most_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Parts of a request: once its head is there, its handler decides how long the rest may take."""
        if self._is_idle():
            self._await_request()
        super().data_received(data)
        if not self._is_idle():
            self._cancel_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """A WebSocket from now on: this is not called again."""
        self._cancel_deadline()
        super().handle_websocket_upgrade(event)

    def _make_room(self) -> None:
        """Another one leaves, or this one."""
        others = (one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self)
        waiting = [
            Waiting(one, one._address, one._since)
            for one in others
            if not one._is_answered() and not one.transport.is_closing()
        ]
        found, _ = longest_of_most(waiting, self._address)
        (self if found is None else found.client).transport.abort()

    @property
    def _address(self) -> str:
        return key_of(self.client[0]) if self.client else ""

    def _is_answered(self) -> bool:
        """Whether an answer to it has begun, and goes on: nobody gets that far without a token."""
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT, self._give_up)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()


def _send_at_once(sock: Any) -> None:
    """The head of an answer and its body are two writes: the second must not wait for the first one's ACK.

    asyncio does so only for sockets that were made with a protocol number. Ref: RFC 896, RFC 1122, 4.2.3.4
    """
    with suppress(OSError):  # it has left already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def most_connections() -> int:
    """So many at a time."""
    return max(min(_MOST, most_descriptors() // _PART), 1)
