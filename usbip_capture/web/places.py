"""How many of something are possible at a time."""

from __future__ import annotations

import threading


class Places:
    """taken: how many are in use. Threads may share it."""

    def __init__(self) -> None:
        self.taken = 0
        self._lock = threading.Lock()

    def take(self, most: int) -> bool:
        """Take one, if fewer than `most` are taken: asked and taken at once."""
        with self._lock:
            if self.taken >= most:
                return False
            self.taken += 1
            return True

    def leave(self) -> None:
        """Of one that was taken."""
        with self._lock:
            self.taken -= 1
