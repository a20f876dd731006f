"""A moment as people read it here: by this machine's clock and time zone."""

from __future__ import annotations

import time


def local_time(seconds: float, now: float) -> str:
    """`16:02:33`, or `2026-11-29 09:00` on another day than `now`; both in seconds since 1970."""
    moment, today = time.localtime(seconds), time.localtime(now)
    return time.strftime("%H:%M:%S" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M", moment)
