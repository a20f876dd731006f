"""Numbers as people read them: three digits and a unit. Pure."""

from __future__ import annotations

_SECOND_NS = 1_000_000_000


def duration(duration_ns: float) -> str:
    """As `1.23 ms`."""
    if duration_ns < 999.5:
        return f"{duration_ns:.0f} ns"
    for unit, size in (("µs", 1000), ("ms", 1_000_000)):
        if duration_ns < 999.5 * size:
            return f"{_three(duration_ns / size)} {unit}"
    return f"{_three(duration_ns / _SECOND_NS)} s"


def rate(bytes_per_second: float) -> str:
    """As `31.2 MB/s`, a megabyte being a million bytes."""
    if not bytes_per_second:
        return "0 B/s"
    for unit, size in (("B/s", 1), ("kB/s", 1000), ("MB/s", 1_000_000)):
        if bytes_per_second < 999.5 * size:
            return f"{_three(bytes_per_second / size)} {unit}"
    return f"{_three(bytes_per_second / 1e9)} GB/s"


def count(number: int, noun: str) -> str:
    """As `1 URB`, `2 URBs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _three(number: float) -> str:
    if number >= 99.95:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
