"""What a simulated device does later: one thread that lives while there is something due."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from itertools import count

from usbip_capture.system.forks import disown_in_children

log = logging.getLogger(__name__)

#: What was dropped stays in the heap until there is so much of it, and more than of the rest.
_TIDY_FROM = 64


class Due:
    """Something that is due."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action


class Timetable:
    """Runs functions at their time, one after the other, on a thread of its own. `close` drops what is left."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._due: list[tuple[float, int, Due]] = []
        self._dropped = 0
        self._order = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        disown_in_children(self)

    def forked(self) -> None:
        """In a child process, which has neither the thread nor what is due: closed."""
        self._changed = threading.Condition()
        self._due.clear()
        self._thread = None
        self._closed = True

    def after(self, seconds: float, action: Callable[[], None]) -> Due:
        """Run `action` once."""
        return self.at(time.monotonic() + seconds, action)

    def at(self, moment: float, action: Callable[[], None]) -> Due:
        """Run `action` once, at a time of `time.monotonic()`. Raises RuntimeError when no thread can be started.

        An action that raises is logged; the others go on.
        """
        due = Due(action)
        with self._changed:
            if self._closed:
                return due
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            heapq.heappush(self._due, (moment, next(self._order), due))
            self._changed.notify()
        return due

    def drop(self, due: Due) -> None:
        """It is not to run any more, and what it refers to is released; no effect on what runs or has run."""
        with self._changed:
            if due.action is None:
                return
            due.action = None
            self._dropped += 1
            if self._dropped >= _TIDY_FROM and self._dropped * 2 > len(self._due):
                self._due = [entry for entry in self._due if entry[2].action is not None]
                heapq.heapify(self._due)
                self._dropped = 0

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` again and again, the first time after `seconds`."""

        def again() -> None:
            try:
                action()
            finally:
                self.after(seconds, again)

        self.after(seconds, again)

    def close(self, *, wait: bool = True) -> None:
        """Nothing runs any more when this returns, unless it is called by what runs, or not to wait for that."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                action = self._next()
            if action is not None:
                try:
                    action()
                except Exception:
                    log.exception("what was due on %s failed", self._name)
                del action  # what it refers to must not be kept until the next one is due

    def _next(self) -> Callable[[], None] | None:
        due = heapq.heappop(self._due)[2]
        action, due.action = due.action, None
        if action is None:
            self._dropped -= 1
        return action
