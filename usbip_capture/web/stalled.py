"""Connections whose peer takes nothing any more: closed politely, they would stay for as long as it likes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

#: Seconds in which something has to be taken of what waits.
PATIENCE = 30.0


class _Seen(NamedTuple):
    waiting: int
    since: float


class Stalled:
    """Ends them. For the event loop alone."""

    def __init__(self) -> None:
        self._seen: dict[Any, _Seen] = {}

    def look(self, connections: Iterable[Any], now: float) -> None:
        """Abort those of which exactly as many bytes wait as PATIENCE seconds before. now: seconds, of any clock.

        connections: with `transport`, as uvicorn has them, also those that are closed and have not sent all.
        """
        before, self._seen = self._seen, {}
        for connection in list(connections):
            waiting = connection.transport.get_write_buffer_size()
            if not waiting:
                continue
            seen = before.get(connection)
            if seen is None or seen.waiting != waiting:
                seen = _Seen(waiting, now)
            self._seen[connection] = seen
            if now - seen.since >= PATIENCE:
                connection.transport.abort()
