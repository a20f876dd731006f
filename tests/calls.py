"""How many calls something takes: a figure that no machine's load changes."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls_of(run: Callable[[], object], times: int = 100) -> tuple[Counter[str], Counter[str]]:
    """Calls that `run` makes in this thread: of Python functions as module:name, and of C functions by name.

    Of `times` runs in a row, divided by their number: what happens now and then only does not count.
    """
    python: Counter[str] = Counter()
    c: Counter[str] = Counter()
    starts = run.__code__ if hasattr(run, "__code__") else None

    def seen(frame: FrameType, event: str, what: Any) -> None:
        if event == "call" and frame.f_code is not starts:
            python[f"{frame.f_globals.get('__name__')}:{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            c[getattr(what, "__name__", "?")] += 1

    run()
    gc.disable()  # it would run finalizers of others
    sys.setprofile(seen)
    try:
        for _ in range(times):
            run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return _each(python, times), _each(c, times)


def _each(found: Counter[str], times: int) -> Counter[str]:
    return Counter({name: count // times for name, count in found.items() if count >= times})
