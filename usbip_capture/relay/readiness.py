"""Which sockets can be read or written now: epoll where there is one, else poll, else select."""

from __future__ import annotations

import select
from typing import Protocol

#: The numbers of poll, which epoll shares.
READABLE, WRITABLE, BROKEN, HUNG_UP = 0x001, 0x004, 0x008, 0x010


class Poller(Protocol):
    """A set of file descriptors, each with what is waited for."""

    def register(self, fd: int, mask: int, /) -> None:
        """Add one."""

    def modify(self, fd: int, mask: int, /) -> None:
        """Wait for something else."""

    def unregister(self, fd: int, /) -> None:
        """Take it out."""

    def poll(self, timeout: float, /) -> list[tuple[int, int]]:
        """What is ready, within `timeout` seconds; negative: without limit."""


def make_poller() -> Poller:
    """The best that this system has."""
    if hasattr(select, "epoll"):
        return select.epoll()
    return PollPoller() if hasattr(select, "poll") else SelectPoller()


class PollPoller:
    """poll, whose time-out is in milliseconds."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.unregister = self._poll.unregister
        self.modify = self._poll.modify

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """What is ready."""
        return self._poll.poll(None if timeout < 0 else timeout * 1000)


class SelectPoller:
    """select, for Windows: it reports neither errors nor ends, and the next read or write does."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def register(self, fd: int, mask: int) -> None:
        """Add one, or change it."""
        self._masks[fd] = mask

    modify = register

    def unregister(self, fd: int) -> None:
        """Take it out."""
        del self._masks[fd]

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """What is ready."""
        reading = [fd for fd, mask in self._masks.items() if mask & READABLE]
        writing = [fd for fd, mask in self._masks.items() if mask & WRITABLE]
        # A connection that failed is reported as an exception there.
        watched = list(self._masks)
        readable, writable, broken = select.select(reading, writing, watched, None if timeout < 0 else timeout)
        found = dict.fromkeys(readable, READABLE)
        for fd in writable:
            found[fd] = found.get(fd, 0) | WRITABLE
        for fd in broken:
            found[fd] = found.get(fd, 0) | BROKEN
        return list(found.items())
