"""Two sequences of what was asked, put side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

#: How far ahead the sequences are searched for where they meet again.
_AHEAD = 256


def aligned(first: Sequence[K], second: Sequence[K]) -> Iterator[tuple[int | None, int | None]]:
    """Places in both, in order; None where the other has nothing like it. Takes time in proportion to their length."""
    i = j = 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            yield i, j
            i, j = i + 1, j + 1
            continue
        skip_first, skip_second = _meeting(first[i : i + _AHEAD], second[j : j + _AHEAD])
        yield from ((place, None) for place in range(i, i + skip_first))
        yield from ((None, place) for place in range(j, j + skip_second))
        i, j = i + skip_first, j + skip_second
    yield from ((place, None) for place in range(i, len(first)))
    yield from ((None, place) for place in range(j, len(second)))


def _meeting(first: Sequence[K], second: Sequence[K]) -> tuple[int, int]:
    """How many of each come before they meet: as few as can be in all; all if they do not."""
    places: dict[K, list[int]] = defaultdict(list)
    for place, key in enumerate(second):
        places[key].append(place)
    best = len(first), len(second)
    for at, key in enumerate(first):
        if at >= sum(best):
            break
        found = places.get(key)
        if found and at + found[0] < sum(best):
            best = at, found[0]
    return best
