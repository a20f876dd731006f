"""How work grows with its size, where it cannot be counted: in processor time, which a busy machine changes little."""

from __future__ import annotations

import time
from collections.abc import Callable


def growth(prepare: Callable[[int], Callable[[], object]], size: int, repeats: int = 3) -> float:
    """The work for 2 * `size` as a multiple of that for `size`; `prepare` makes what is measured."""
    one, two = (min(_work(prepare(n)) for _ in range(repeats)) for n in (size, 2 * size))
    return two / one


def _work(run: Callable[[], object]) -> float:
    begin = time.thread_time()
    run()
    return time.thread_time() - begin
