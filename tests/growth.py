"""How work grows with its size, where it cannot be counted: in processor time, which a busy machine changes little."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def growth(prepare: Callable[[int], Callable[[], object]], size: int, repeats: int = 4) -> float:
    """The work for 2 * `size` as a multiple of that for `size`; `prepare` makes what is measured."""
    one, two = (min(_work(prepare(n)) for _ in range(repeats)) for n in (size, 2 * size))
    return two / one


#: Seconds below which the clock decides; what is quadratic in the sizes of tests takes a multiple.
_TOO_SHORT = 0.001


def is_linear(prepare: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether twice the size is less than three times the work; quadratic work would be four, in each attempt."""
    for _ in range(3):
        two = min(_work(prepare(2 * size)) for _ in range(3))
        if two < _TOO_SHORT or two < 3 * min(_work(prepare(size)) for _ in range(3)):
            return True
    return False


def _work(run: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()  # it looks at what others have made as well, when it likes
    try:
        begin = time.thread_time()
        run()
        return time.thread_time() - begin
    finally:
        gc.enable()
