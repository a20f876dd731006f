"""Waiting for what another program does, when nothing else notifies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Seconds. Most of what is waited for happens at once, and some tests wait hundreds of times.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def wait_until(what: str, condition: Callable[[], T], timeout: float = 20.0) -> T:
    """The first true value of `condition`; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = _SHORTEST_PAUSE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return value
