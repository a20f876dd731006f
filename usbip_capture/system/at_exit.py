"""What must be closed before the interpreter ends.

Then daemon threads stop wherever they are, with the locks that they hold; who closes later, in `__del__`, would wait
for them for ever.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from typing import Protocol
from weakref import ref

log = logging.getLogger(__name__)


class Closable(Protocol):
    """What is closed when its owner forgets to."""

    def close(self) -> None:
        """End it. May be called again."""


_open: dict[int, ref[Closable]] = {}


def close_at_exit(thing: Closable) -> None:
    """Have `thing.close` called when the interpreter ends, if `thing` is still there; the newest first.

    Before the finalizers of whatever libraries have made until now.
    """
    atexit.unregister(_close_all)
    atexit.register(_close_all)  # what is registered last is called first
    key = id(thing)
    _open[key] = ref(thing, lambda _: _open.pop(key, None))


class AtExit:
    """Has `close` called when the interpreter ends, if whoever keeps this is still there.

    For classes that have no weak references of their own, as those of the compiled build.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close
        close_at_exit(self)


def _close_all() -> None:
    while _open:
        thing = _open.popitem()[1]()
        if thing is not None:
            try:
                thing.close()
            except Exception as error:  # noqa: BLE001  of one must not keep the others open
                log.warning("at the end of the program: %s", error)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_open.clear)
