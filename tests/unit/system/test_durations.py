from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.system.durations import milliseconds


@given(st.floats(min_value=0, max_value=1e9, exclude_min=True))
def test_never_shorter_than_asked_and_never_for_ever(seconds: float) -> None:
    assert 1 <= milliseconds(seconds) <= 0x7FFFFFFF
    assert milliseconds(seconds) >= min(seconds * 1000, 0x7FFFFFFF)


def test_edges() -> None:
    assert [milliseconds(s) for s in (0, -1, 0.0005, 0.0011, 2)] == [0, 0, 1, 2, 2000]
    assert milliseconds(math.inf) == 0x7FFFFFFF
