"""How the time of some work grows with its size: for what cannot be counted."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

#: What a doubling may cost. Linear work has 2, quadratic work 4.
LIMIT = 3.0


def growth(prepare: Callable[[int], Callable[[], object]], size: int, rounds: int = 4) -> float:
    """t(2 * size) / t(size), in processor time of this process; of several rounds the best of each counts.

    prepare(n) makes ready what is not measured, and returns the work of size n.
    """
    best = {size: float("inf"), 2 * size: float("inf")}
    for _ in range(rounds):
        for n in best:
            work = prepare(n)
            gc.collect()
            gc.disable()
            begin = time.process_time()
            try:
                work()
            finally:
                best[n] = min(best[n], time.process_time() - begin)
                gc.enable()
    return best[2 * size] / best[size]


def assert_grows_linearly(prepare: Callable[[int], Callable[[], object]], size: int) -> None:
    """Several attempts: another process can disturb one, but does not make quadratic work linear."""
    ratios = []
    for _ in range(3):
        ratios.append(growth(prepare, size))
        if ratios[-1] < LIMIT:
            return
    raise AssertionError(f"twice the size takes {min(ratios):.1f} times as long")
