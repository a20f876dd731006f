"""How fast something that costs others is let through.

Ref: ITU-T I.371, generic cell rate algorithm
"""

from __future__ import annotations


class Pace:
    """At most `rate` a second, after up to `burst` at once. For the event loop alone."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate
        self._tolerance = self._interval * (burst - 1)
        self._due = 0.0  # of the next one, if all came evenly

    def seconds(self, now: float) -> float:
        """How long the one that comes now has to wait, 0 if not at all; those who wait keep their order."""
        due = max(self._due, now)
        self._due = due + self._interval
        return max(due - self._tolerance - now, 0.0)
