"""What a simulated device does later: one thread that lives while there is something due."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count


class Timetable:
    """Runs functions at their time, one after the other, on a thread of its own. `close` drops what is left."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` once."""
        self.at(time.monotonic() + seconds, action)

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Run `action` once, at a time of `time.monotonic()`."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._due, (moment, next(self._order), action))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` again and again, the first time after `seconds`."""

        def again() -> None:
            action()
            self.after(seconds, again)

        self.after(seconds, again)

    def close(self) -> None:
        """Nothing runs any more when this returns, unless it is called by what runs."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                _, _, action = heapq.heappop(self._due)
            action()
