"""Waiting for what another program does, when nothing else notifies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Seconds. Most of what is waited for happens at once, and some tests wait hundreds of times.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
#: A question that starts a program takes from what it waits for: it pauses as long as it took, up to this.
_LONGEST_REST = 0.5


def wait_until(what: str, condition: Callable[[], T], timeout: float = 20.0) -> T:
    """The first true value of `condition`; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause, asked = _SHORTEST_PAUSE, time.monotonic()
    while not (value := condition()):
        answered = time.monotonic()
        if answered > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(max(pause, min(answered - asked, _LONGEST_REST)))
        pause, asked = min(2 * pause, _LONGEST_PAUSE), time.monotonic()
    return value
