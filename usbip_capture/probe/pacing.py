"""Calls that are due later, on one thread that exists only while there are some."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count

#: Seconds that the thread waits for more to do before it ends.
_LINGER = 1.0


class Pacer:
    """`later` may be called from any thread; what is due after `close` is forgotten."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run `call` after so many seconds."""
        with self._condition:
            if self._closed:
                return
            heapq.heappush(self._calls, (time.monotonic() + seconds, next(self._numbers), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="usbip-pacer", daemon=True)
                self._thread.start()
            self._condition.notify()

    def close(self) -> None:
        """Forget what is due."""
        with self._condition:
            self._closed = True
            self._calls.clear()
            self._condition.notify()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            call()

    def _next(self) -> Callable[[], None] | None:
        with self._condition:
            while not self._closed:
                wait = self._calls[0][0] - time.monotonic() if self._calls else _LINGER
                if self._calls and wait <= 0:
                    return heapq.heappop(self._calls)[2]
                if not self._condition.wait(wait) and not self._calls:
                    break
            self._thread = None
            return None
