"""A wait that signals may interrupt."""

from __future__ import annotations

import os
import time
from queue import Empty, SimpleQueue

#: Windows cannot interrupt a wait for longer than this, in seconds.
_STEP = 0.2 if os.name == "nt" else None


class Latch:
    """Set once, for good. In a signal handler, too: it may interrupt `wait`, or raise out of it.

    With a `threading.Event` the one would wait for a lock of the thread that it interrupts, the other leave it locked.

    Ref: Python's signal module, note on signal handlers and exceptions
    """

    def __init__(self) -> None:
        self._is_set = False
        self._gate: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Let everybody pass who waits, or will."""
        self._is_set = True
        self._gate.put(None)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is set; waits for that, at most `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                self._gate.get(timeout=min((each for each in (left, _STEP) if each is not None), default=None))
            except Empty:
                continue
            self._gate.put(None)  # for the next
        return self._is_set
