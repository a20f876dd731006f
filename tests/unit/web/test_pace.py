"""What is let through, and when."""

from __future__ import annotations

import pytest

from usbip_capture.web.pace import Pace


def test_a_burst_then_evenly() -> None:
    pace = Pace(4.0, 3)
    assert [pace.seconds(100.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75])


def test_who_is_slower_never_waits() -> None:
    pace = Pace(4.0, 1)
    assert [pace.seconds(at / 4) for at in range(40, 80)] == [0.0] * 40


def test_a_burst_is_possible_again_after_a_while() -> None:
    pace = Pace(10.0, 8)
    assert [pace.seconds(1.0) for _ in range(8)] == pytest.approx([0.0] * 8)
    assert pace.seconds(1.0) == pytest.approx(0.1)
    assert [pace.seconds(2.0) for _ in range(8)] == pytest.approx([0.0] * 8)


def test_one_who_comes_again_and_again_gets_the_rate() -> None:
    pace = Pace(10.0, 5)
    now = 50.0
    for _ in range(105):
        now += pace.seconds(now)
    assert now == pytest.approx(60.0)
