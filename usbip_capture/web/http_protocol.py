"""uvicorn's HTTP, for strangers: one that does not send its request in time leaves its place to others."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds for the whole head of a request, from the connection on, or from the first byte of a further one.
HEAD_TIMEOUT = 10.0


class BoundedProtocol(H11Protocol):
    """Ends a connection that does not send a request within HEAD_TIMEOUT."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The first request is awaited from now on."""
        super().connection_made(transport)
        self._await_request()

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
