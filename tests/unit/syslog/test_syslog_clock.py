"""`syslog.clock`: a device's clock aligned to ours."""

from __future__ import annotations

from usbip_capture.syslog.clock import AlignedClock

MS = 1_000_000
S = 1000 * MS
START = 1_700_000_000 * S


def test_the_smallest_delay_aligns() -> None:
    clock = AlignedClock()
    # Made at 0, 100, 200 ms after the device's start; underway for 30, 5 and 80 ms.
    assert clock.align(0, START + 30 * MS) == START + 30 * MS
    assert clock.align(100 * MS, START + 105 * MS) == START + 105 * MS
    assert clock.align(200 * MS, START + 280 * MS) == START + 205 * MS
    assert clock.align(300 * MS, START + 310 * MS) == START + 305 * MS


def test_never_later_than_the_arrival() -> None:
    clock = AlignedClock()
    for second in range(1000):
        arrival = START + second * S + (second * 7919 % 50) * MS
        assert clock.align(second * S + second * 50_000, arrival) <= arrival  # 50 ppm fast


def test_a_clock_that_drifts_is_followed() -> None:
    clock = AlignedClock()
    late = [START + s * S - clock.align(s * S - s * 100_000, START + s * S) for s in range(3600)]  # 100 ppm slow
    assert max(late) <= 120 * 100_000


def test_a_restart_begins_anew() -> None:
    clock = AlignedClock()
    clock.align(5000 * S, START)
    assert clock.align(1 * S, START + 10 * S) == START + 10 * S
    assert clock.align(2 * S, START + 13 * S) == START + 11 * S


def test_a_clock_that_is_started_anew_again_and_again() -> None:
    clock = AlignedClock()
    for boot in range(20):  # each lives for 1.5 s, and is silent for 2 s before
        start = START + boot * 3500 * MS
        for uptime in (0, 700 * MS, 1500 * MS):
            assert clock.align(uptime, start + uptime) == start + uptime


def test_messages_that_overtake_each_other_are_no_restart() -> None:
    clock = AlignedClock()
    clock.align(5000 * S, START)
    assert clock.align(4999 * S + 990 * MS, START + 1 * MS) == START - 10 * MS
    assert clock.align(5001 * S, START + 1 * S + 4 * MS) == START + 1 * S
