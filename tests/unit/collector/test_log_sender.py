"""`collector.sender`: the clocks of what one sender passes on."""

from __future__ import annotations

from usbip_capture.collector.sender import Sender
from usbip_capture.records.upper_pdu import Flow

S = 1_000_000_000
NOW = 1_700_000_000 * S


def made(sender: Sender, line: str, arrival_ns: int) -> int | None:
    (message,) = sender.received(line.encode() + b"\n", arrival_ns)
    return sender.made_ns(message)


def test_each_host_of_a_relay_has_its_own_clock() -> None:
    sender = Sender(Flow("192.0.2.1", 1, "192.0.2.2", 2))
    for second in range(3):  # one is an hour ahead, one an hour late; lines have the uptime
        arrival = NOW + second * S
        assert made(sender, f"<13>1 2023-11-14T23:13:2{second}Z ahead a - - - x", arrival) == arrival
        assert made(sender, f"<13>1 2023-11-14T21:13:2{second}Z late a - - - x", arrival) == arrival
        assert made(sender, f"I ({second}000) a: x", arrival) == arrival
    assert made(sender, "<13>1 2023-11-14T23:13:22.5Z ahead a - - - x", NOW + 4 * S) == NOW + 2 * S + S // 2


def test_what_has_no_time_is_not_aligned() -> None:
    sender = Sender(Flow("192.0.2.1", 1, "192.0.2.2", 2))
    assert made(sender, "<13>Oct 11 22:14:15 h a: x", NOW) is None
    assert made(sender, "<13>1 - h a - - - x", NOW) is None


def test_clocks_of_thousands_of_hosts_are_forgotten() -> None:
    sender = Sender(Flow("192.0.2.1", 1, "192.0.2.2", 2))
    for number in range(3000):
        assert made(sender, f"<13>1 2023-11-14T22:13:20Z host{number} a - - - x", NOW) == NOW
    assert len(sender._clocks) <= 256
