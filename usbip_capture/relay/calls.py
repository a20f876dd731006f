"""What other threads want the relay's thread to do: it wakes up for each of these calls."""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)


def guarded(step: Callable[[], object]) -> None:
    """Do it; what comes next is done whether it fails or not: nobody is cut off for a fault of ours."""
    try:
        step()
    except Exception:
        log.exception("internal error; the relay goes on")


class Calls:
    """A queue of calls for one thread. sock: readable while some wait; then `made` is to be called."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self.sock, self._wake = socket.socketpair()
        self.sock.setblocking(False)
        self._wake.setblocking(False)
        self._ended = False
        self._lock = threading.Lock()  # of _waiting and _ended

    @property
    def ended(self) -> bool:
        """Whether its thread makes no more calls: whoever wants one makes it itself."""
        return self._ended

    def soon(self, what: Callable[[], None]) -> None:
        """Have it done soon."""
        with self._lock:
            if not self._ended:
                self._waiting.append(what)
                try:
                    self._wake.send(b"\0")
                except BlockingIOError:  # it has been woken, many times over
                    pass
                return
        what()

    def wait(self, what: Callable[[], None]) -> None:
        """Have it done, and wait for that."""
        done = threading.Event()

        def do() -> None:
            try:
                what()
            finally:
                done.set()

        self.soon(do)
        done.wait()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Have it done then; soon, where this system has no thread left."""
        timer = threading.Timer(seconds, self.soon, (what,))
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            self.soon(what)

    def made(self, mask: int) -> None:
        """Make those that wait, on the thread that they are for."""
        try:
            self.sock.recv(4096)
        except BlockingIOError:
            pass
        while self._waiting:
            guarded(self._waiting.popleft())

    def forked(self) -> None:
        """In a child process, whose parent has the thread."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self.end()

    def end(self) -> None:
        """Make those that still wait; there are no more."""
        with self._lock:
            self._ended = True
        while self._waiting:
            guarded(self._waiting.popleft())
        self.sock.close()
        self._wake.close()
