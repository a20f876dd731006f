"""Bytes in flight: Linux has 16 MB for the transfers of all programs that use usbfs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LIMIT = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")
#: What is kept for other programs, and for what usbfs itself needs with each transfer.
_SHARE = 0.75
#: Where there is no limit, and where none is known: what a server keeps in memory at most.
_ELSEWHERE = 64 << 20


class Budget:
    """Bytes that transfers may take at a time; a single one may be larger than that."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: dict[Callable[[], None], None] = {}
        self._lock = threading.Lock()

    def take(self, size: int, on_room: Callable[[], None]) -> bool:
        """False if there is no room now: then `on_room` is called once, from any thread, when there may be some."""
        with self._lock:
            if self.used and self.used + size > self.limit:
                self._waiting[on_room] = None
                return False
            self.used += size
            return True

    def release(self, size: int, *, notify: bool = True) -> None:
        """Bytes that were taken are free again. notify: or call `notify` when no lock is held that it needs."""
        with self._lock:
            self.used -= size
        if notify:
            self.notify()

    def notify(self) -> None:
        """Let those who wait try again."""
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
        if megabytes:
            return int(megabytes * (1 << 20) * _SHARE)
    return _ELSEWHERE
