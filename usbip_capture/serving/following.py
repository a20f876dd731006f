"""A file whose changes are followed: the configuration, which other programs and people write."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds between two looks at the file.
INTERVAL = 1.0


class FollowedFile:
    """Calls `on_change` on a thread of its own when the file has changed, come or gone, until closed.

    Not before it stays so for one interval: who writes it may empty it first, or move it aside.
    """

    def __init__(self, path: str, on_change: Callable[[], object], interval: float = INTERVAL) -> None:
        self._path = path
        self._on_change = on_change
        self._interval = interval
        self._closing = threading.Event()
        self._followed = self._seen = _state(path)
        self._thread = threading.Thread(target=self._run, name="usbip-configuration", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Follow it no more. May be called again."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def recheck(self) -> None:
        """Call `on_change` soon in any case: we have written it, and others may have done so since."""
        self._followed = (-1,)

    def look(self) -> None:
        """Once."""
        before, self._seen = self._seen, _state(self._path)
        if before != self._seen or self._seen == self._followed:
            return
        self._followed = self._seen
        try:
            self._on_change()
        except Exception:
            log.exception("a change of %s cannot be followed", self._path)

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            self.look()


def _state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
