"""How work grows with its size, where it cannot be counted: in processor time, which a busy machine changes little."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

Run = Callable[[], object]


def assert_grows_linearly(prepare: Callable[[int], Run], size: int, attempts: int = 16) -> None:
    """Twice the size is twice the work: quadratic work would be four times as much, in each attempt.

    `prepare` makes what is measured, for `size` and for 2 * `size`.
    """
    one = two = float("inf")
    for attempt in range(attempts):
        # By turns, so that what a busy machine takes away it takes from both; of each the least.
        one, two = min(one, _work(prepare(size))), min(two, _work(prepare(2 * size)))
        if attempt and two < 3 * one:
            return
    raise AssertionError(f"{two / one:.1f} times the work for twice the size")


def _work(run: Run) -> float:
    gc.collect()
    gc.disable()  # it looks at what others have made as well, when it likes
    try:
        begin = time.thread_time()
        run()
        return time.thread_time() - begin
    finally:
        gc.enable()
