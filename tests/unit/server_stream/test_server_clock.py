"""The server's clock beside ours, by the smallest delay seen."""

from __future__ import annotations

from usbip_capture.server_stream.clock import LATEST_NS, NEWS_NS, WINDOW_NS, ServerClock
from usbip_capture.server_stream.own_log import OwnLog

AHEAD, SECOND = 5_000_000_000, 1_000_000_000


def test_the_smallest_delay_counts() -> None:
    clock = ServerClock()
    assert (clock.at(1000), clock.news()) == (1000, "")  # nothing is known yet
    for number, delay in enumerate([900, 300, 700]):
        server = number * SECOND
        clock.saw(server, server + AHEAD + delay)
    assert clock.at(AHEAD + 300) == 0
    assert "our clock is +5.000000 s ahead" in clock.news()
    clock.saw(0, 3 * SECOND + AHEAD)  # what was kept there for long changes nothing
    assert clock.ahead_ns == AHEAD + 300


def test_no_server_makes_a_time_that_a_packet_cannot_have() -> None:
    clock = ServerClock()
    clock.saw(10**20, 5)
    assert clock.at(6) == LATEST_NS
    clock = ServerClock()
    clock.saw(1, 10)
    assert clock.at(5) == 0


def test_it_is_reported_once_and_again_when_much_has_changed() -> None:
    clock = ServerClock()
    clock.saw(0, NEWS_NS * 3)
    assert clock.news()
    clock.saw(0, NEWS_NS * 3 - 1)
    assert not clock.news()
    clock.saw(0, NEWS_NS)
    assert "+0.010000 s" in clock.news()


def test_a_clock_that_drifts_or_is_set_back_is_followed() -> None:
    clock = ServerClock()
    clock.saw(WINDOW_NS, WINDOW_NS + 100)
    for number in (2, 3):
        clock.saw(number * WINDOW_NS - SECOND, number * WINDOW_NS + 100)  # the server's was set back by a second
    assert clock.ahead_ns == SECOND + 100
    clock.saw(50, 40)  # and ours now
    assert clock.ahead_ns == -10


def test_a_log_of_ours_has_the_servers_time() -> None:
    clock = ServerClock()
    clock.saw(0, AHEAD)
    written: list[object] = []
    log = OwnLog(written.append, written.append, clock.at)
    log.write([(AHEAD + 7, b"x", ["a comment"])])
    log.lost(3)
    log.note("the end")
    assert written == [
        [(7, b"x", ["a comment"])], "usbip-capture: 3 messages of the log were lost on their way", "the end",
    ]  # fmt: skip
