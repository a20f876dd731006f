"""Durations counted in buckets that grow with them: any quantile within 1 %, in little memory. Pure.

Ref: the scheme is that of HdrHistogram, log-linear buckets
"""

from __future__ import annotations

from collections.abc import Sequence

_BITS = 6


class Histogram:
    """Durations in nanoseconds. Up to 64 ns each has a bucket of its own, from there on 64 share each power of two."""

    __slots__ = ("_buckets", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self.count = 0
        self.minimum = 0
        self.maximum = 0
        self._buckets: dict[int, int] = {}

    def add(self, duration_ns: int) -> None:
        """Count one, which is not negative."""
        if not self.count or duration_ns < self.minimum:
            self.minimum = duration_ns
        if duration_ns > self.maximum:
            self.maximum = duration_ns
        self.count += 1
        shift = duration_ns.bit_length() - _BITS - 1
        bucket = (shift << _BITS) + (duration_ns >> shift) if shift > 0 else duration_ns
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def add_all(self, durations_ns: Sequence[int]) -> None:
        """Count several, at least one."""
        shortest, longest, buckets = min(durations_ns), max(durations_ns), self._buckets
        self.minimum = min(self.minimum, shortest) if self.count else shortest
        self.maximum = max(self.maximum, longest)
        self.count += len(durations_ns)
        for duration_ns in durations_ns:
            shift = duration_ns.bit_length() - _BITS - 1
            bucket = (shift << _BITS) + (duration_ns >> shift) if shift > 0 else duration_ns
            buckets[bucket] = buckets.get(bucket, 0) + 1

    def quantile(self, fraction: float) -> int:
        """The duration that this part of all does not exceed (nearest rank); 0 if there is none."""
        if not self.count:
            return 0
        rank = max(1, -int(-fraction * self.count // 1))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                break
        return min(max(_middle(bucket), self.minimum), self.maximum)

    def copy(self) -> Histogram:
        """As it is now."""
        made = Histogram()
        made.count, made.minimum, made.maximum = self.count, self.minimum, self.maximum
        made._buckets = self._buckets.copy()
        return made

    def powers(self) -> dict[int, int]:
        """How many there are for each power of two: exponent -> those below that many nanoseconds, down to half."""
        found: dict[int, int] = {}
        for bucket, count in sorted(self._buckets.items()):
            exponent = _start(bucket).bit_length()
            found[exponent] = found.get(exponent, 0) + count
        return found


def _start(bucket: int) -> int:
    shift = (bucket >> _BITS) - 1
    return bucket - (shift << _BITS) << shift if shift > 0 else bucket


def _middle(bucket: int) -> int:
    shift = (bucket >> _BITS) - 1
    return _start(bucket) + (1 << shift - 1 if shift > 0 else 0)
