"""Bytes in flight: Linux has 16 MB for the transfers of all programs that use usbfs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LIMIT = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")
#: Our part of it; the rest is for other programs, and for endpoints that are idle when all of this is in use.
_SHARE = 0.75
#: Where there is no limit, and where none is known: what a server keeps in memory at most.
_ELSEWHERE = 64 << 20


class Budget:
    """Bytes that transfers may take at a time. used: what they take."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: dict[Callable[[], None], None] = {}
        self._lock = threading.Lock()

    def take(self, size: int, on_room: Callable[[], None], *, idle: bool) -> bool:
        """False if there is no room now: then `on_room` is called once, from any thread, when there may be some.

        idle: nothing is in flight on the endpoint. It gets what it needs: what keeps all the rest busy might be reads
        that never end.
        """
        with self._lock:
            if not idle and self.used + size > self.limit:
                self._waiting[on_room] = None
                return False
            self.used += size
            return True

    def wait(self, on_room: Callable[[], None]) -> None:
        """As a `take` that found no room."""
        with self._lock:
            self._waiting[on_room] = None

    def release(self, size: int) -> None:
        """Bytes that were taken are free again. `notify` is to be called next, when no lock is held."""
        with self._lock:
            self.used -= size

    def notify(self) -> None:
        """Let those who wait try again, the longest waiting first."""
        if not self._waiting:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for on_room in waiting:
            on_room()


def usbfs_limit() -> int:
    """What this system lets the process have."""
    with suppress(OSError, ValueError):
        megabytes = int(_LIMIT.read_text())
        if megabytes > 0:
            return int(megabytes * (1 << 20) * _SHARE)
    return _ELSEWHERE
