"""A file whose changes are followed: the configuration, which other programs and people write."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds between two looks at the file.
INTERVAL = 1.0


class Trouble:
    """Logs what goes wrong once, however often it is tried again."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._last = ""

    def log(self, text: str) -> None:
        """Unless it was the last one, and nothing went well since."""
        if text != self._last:
            self._last = text
            self._log.warning("%s", text)

    def over(self) -> None:
        """It goes well now."""
        self._last = ""


class FollowedFile:
    """Calls `on_change` on a thread of its own when the file has changed, come or gone, until closed.

    Again at each look for as long as it raises, or returns False: what cannot be read now can be, later.

    Not before it stays so for one interval: who writes it may empty it first, or move it aside.
    """

    def __init__(self, path: str, on_change: Callable[[], object], interval: float = INTERVAL) -> None:
        self._path = path
        self._on_change = on_change
        self._interval = interval
        self._closing = threading.Event()
        self._trouble = Trouble(log)
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
            is_done = self._on_change() is not False
        except Exception as error:
            is_done = False
            self._trouble.log(f"a change of {self._path} cannot be followed: {type(error).__name__}: {error}")
            log.debug("where that is", exc_info=True)
        if is_done:
            self._trouble.over()
        else:
            self.recheck()

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            self.look()


def _state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
