"""What a process inherits when it is forked, and must not touch: its parent's connections and captures.

A connection closed by the child would be lost to the parent, and a capture would be written twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """What belongs to the process that made it."""

    def forked(self) -> None:
        """Called in a child after the fork, where no other thread runs and locks may be held by threads that are gone.

        Close it, without a message to anybody outside.
        """


_inherited: WeakSet[Inherited] = WeakSet()
_lock = threading.Lock()


def disown_in_children(thing: Inherited) -> None:
    """Have `thing.forked` called in every process that is forked from this one, while `thing` is there."""
    with _lock:
        _inherited.add(thing)


class Inheritance:
    """Has `forked` called in every process that is forked from this one, while whoever keeps this is there.

    For classes that have no weak references of their own, as those of the compiled build.
    """

    def __init__(self, forked: Callable[[], None]) -> None:
        self.forked = forked
        disown_in_children(self)


def set_event() -> threading.Event:
    """An event that is set, for `forked`: setting the one that is there takes its lock, which may be held for ever."""
    made = threading.Event()
    made.set()
    return made


def _in_child() -> None:
    global _lock  # noqa: PLW0603  somebody may have held it
    _lock = threading.Lock()
    things = list(_inherited)
    _inherited.clear()
    for thing in things:
        with suppress(Exception):  # of one must not keep the others: nobody could handle it here
            thing.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_in_child)
