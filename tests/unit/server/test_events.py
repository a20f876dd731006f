"""Events: in order, for each who takes them; what one client repeats is counted; a stranger's text is text."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.net.listening import Peer
from usbip_capture.server import events as kinds
from usbip_capture.server.described import as_data, sentence
from usbip_capture.server.events import RING, Event, Events
from usbip_capture.server.repeats import BURST, PERIOD
from usbip_capture.syslog.severity import WARNING

PEER = Peer("192.0.2.7", 50000, "192.0.2.1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events(clock: Clock) -> Events:
    return Events(clock)


def kept(events: Events) -> list[Event]:
    return events.after(0, RING)


def test_events_have_their_numbers_and_the_ring_its_bound(events: Events) -> None:
    for number in range(RING + 5):
        events.emit(kinds.EXPORTED, busid=str(number))
    found = kept(events)
    assert [event.number for event in found] == list(range(6, RING + 6))
    assert found[0].busid == "5"
    assert events.last == RING + 5
    assert [event.number for event in events.after(RING + 3, 10)] == [RING + 4, RING + 5]
    assert [event.number for event in events.after(0, 3)] == [6, 7, 8]
    assert events.after(events.last, 10) == []


def test_a_subscription_has_what_comes_after_it_and_counts_what_does_not_fit(events: Events) -> None:
    events.emit(kinds.EXPORTED, busid="before")
    taken = events.subscribe(3)
    for number in range(5):
        events.emit(kinds.EXPORTED, busid=str(number))
    assert (len(taken), taken.total_lost) == (3, 2)
    assert [event.busid for event in taken.take(2)] == ["0", "1"]
    assert (taken.take_lost(), taken.take_lost()) == (2, 0)
    events.emit(kinds.EXPORTED, busid="5")
    assert [event.busid for event in taken.take(9)] == ["2", "5"]
    assert taken.take(9, 0.0) == []
    taken.close()
    events.emit(kinds.EXPORTED)
    assert taken.take(9) == []


def test_who_waits_is_woken_by_an_event_and_by_the_end(events: Events) -> None:
    taken = events.subscribe(3)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(taken.take(1))),
        threading.Thread(target=lambda: found.append(events.after(0, 1, 60.0))),
    ]
    for thread in threads:
        thread.start()
    events.emit(kinds.EXPORTED)
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    waiting = threading.Thread(target=lambda: found.append((taken.take(1), events.after(1, 1, 60.0))))
    waiting.start()
    events.close()
    waiting.join(20)
    assert found[2] == ([], [])
    events.emit(kinds.EXPORTED)  # nobody takes it
    assert events.subscribe(3).take(1) == []


def test_what_a_client_repeats_is_counted(events: Events, clock: Clock) -> None:
    for _ in range(1000):
        events.emit(kinds.REFUSED, WARNING, peer=PEER, text="it is not allowed here")
    assert [event.times for event in kept(events)] == [1] * BURST
    events.emit(kinds.REFUSED, peer=PEER._replace(host="192.0.2.8"), text="it is not allowed here")
    events.emit(kinds.REFUSED, peer=PEER, text="too many clients")
    events.emit(kinds.IMPORTED, peer=PEER, busid="1-1")
    assert len(kept(events)) == BURST + 3
    clock.now += PERIOD
    repeated = kept(events)[-1]
    assert (repeated.kind, repeated.times, repeated.severity) == (kinds.REFUSED, 1000 - BURST, WARNING)
    assert "990 times" in sentence(repeated)
    assert as_data(repeated)["times"] == 990
    events.emit(kinds.REFUSED, peer=PEER, text="it is not allowed here")
    assert kept(events)[-1].times == 1


def test_a_flood_leaves_no_more_than_its_bound(events: Events, clock: Clock) -> None:
    """From one network of IPv6, with another address and another device each time."""
    for number in range(5000):
        peer = Peer(f"2001:db8::{number:x}", 1, "::1")
        for kind in (kinds.CONNECTED, kinds.LISTED, kinds.ENDED, kinds.DISCONNECTED):
            events.emit(kind, peer=peer, text=f"garbage {number}")
        events.emit(kinds.REFUSED, peer=peer, text="there is no such device", busid=f"1-{number}")
    assert len(kept(events)) == 5 * BURST
    events.close()
    assert [event.times for event in kept(events)[-5:]] == [5000 - BURST] * 5


def test_many_networks_at_once_are_bounded_and_all_counted(events: Events) -> None:
    total = 0
    for number in range(500):
        for _ in range(BURST + 2):
            events.emit(kinds.LISTED, peer=Peer(f"198.18.{number >> 8}.{number & 255}", 1))
            total += 1
    assert len(events._repeats._seen) <= 256
    events.close()
    assert sum(event.times for event in kept(events)) == total


def test_a_clock_that_is_set_back_does_not_hide_events(events: Events, clock: Clock) -> None:
    for _ in range(BURST + 1):
        events.emit(kinds.LISTED, peer=PEER)
    clock.now -= 3600
    events.emit(kinds.LISTED, peer=PEER)
    assert len(kept(events)) == BURST + 2


def test_memory_for_strangers_texts_is_bounded(events: Events) -> None:
    events.emit(kinds.REFUSED, peer=PEER, busid="1" * 5000, text="x" * 5000, device="d" * 5000, rule="r" * 5000)
    (event,) = kept(events)
    assert max(map(len, (event.busid, event.text, event.device, event.rule))) <= 256


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event(kinds.CONNECTED, 0, peer=PEER), "client 192.0.2.7:50000 has connected"),
        (
            Event(kinds.REFUSED, 0, peer=PEER, busid="1-1", device="303a:4001:AB", rule="deny any 1-1", text="denied"),
            "client 192.0.2.7:50000 is refused 1-1 (303a:4001:AB): denied (rule: deny any 1-1)",
        ),
        (
            Event(kinds.ENDED, 0, peer=Peer(identity="paired:ann"), busid="1-1", text="kicked", by="user"),
            "client of this machine (paired:ann) is disconnected from 1-1: kicked (by user)",
        ),
        (Event(kinds.LOST, 0, times=7, text="late"), "events are missing here: late (7 times)"),
        (Event("new-kind", 0, text="x"), "new-kind: x"),
    ],
)
def test_sentences(event: Event, expected: str) -> None:
    assert sentence(event) == expected


TEXTS = st.text(st.characters(), max_size=30)


@given(st.builds(Event, TEXTS, st.floats(0, 4e9), st.integers(0, 7), st.none(), TEXTS, TEXTS, TEXTS, TEXTS, TEXTS))
def test_a_stranger_s_text_is_text(event: Event) -> None:
    assert sentence(event).isprintable()
    line = json.dumps(as_data(event))
    assert line.isascii()
    assert "\n" not in line
    found = json.loads(line)
    for name in ("busid", "device", "rule", "text", "by"):
        assert found.get(name, "") == getattr(event, name)


def test_emitting_is_safe_for_many_threads(events: Events) -> None:
    taken = events.subscribe(100_000)

    def emit(number: int) -> None:
        for at in range(500):
            events.emit(kinds.IMPORTED, busid=f"{number}-{at}")

    threads = [threading.Thread(target=emit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = taken.take(100_000)
    assert [event.number for event in found] == list(range(1, 4001))
    assert found == kept(events)
    for number in range(8):
        assert [e.busid for e in found if e.busid.startswith(f"{number}-")] == [f"{number}-{at}" for at in range(500)]
