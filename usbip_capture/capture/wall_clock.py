"""Whether the clock that time stamps come from was set while a capture ran."""

from __future__ import annotations

import time

#: A difference of so much, in nanoseconds, is a jump; clocks that are slewed into step differ by less.
_JUMP_NS = 1_000_000_000


class WallClock:
    """Compares the clock with the one that nobody can set, from look to look."""

    def __init__(self) -> None:
        self._difference_ns = _difference_ns()

    def jump(self) -> str:
        """The comment on a jump since the last one; empty if there was none."""
        now = _difference_ns()
        jump_ns = now - self._difference_ns
        if abs(jump_ns) <= _JUMP_NS:
            return ""
        self._difference_ns = now
        return (
            f"usbip-capture: this machine's clock jumped by {jump_ns / 1e9:+.3f} s (it was set, or the machine slept);"
            " time stamps before and after cannot be compared"
        )


def _difference_ns() -> int:
    return time.time_ns() - time.monotonic_ns()
