"""Seconds, as they are inside, become milliseconds at the edges that count in these. Pure."""

from __future__ import annotations

import math


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up: a limit above 0 never becomes 0, which PyUSB takes for "for ever".

    A limit that is infinite, or too long for a C int, becomes the longest one (24 days).
    """
    if seconds <= 0:
        return 0
    return min(math.ceil(seconds * 1000), 0x7FFFFFFF) if seconds < 0x7FFFFFFF else 0x7FFFFFFF
