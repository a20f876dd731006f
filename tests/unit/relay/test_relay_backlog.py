"""What waits to be observed: nobody waits for others longer than a moment, and nothing gets lost or out of order."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from random import Random

import pytest

from tests.builders.tcp_recording import CLIENT
from tests.builders.usbip_sessions import BULK_OUT, imported, submit
from tests.growth import assert_grows_linearly
from tests.oracles.pcapng_reader import read_capture
from usbip_capture import PcapWriter
from usbip_capture.relay.backlog import Backlog
from usbip_capture.relay.captures import RelayCapture
from usbip_capture.relay.observation import FIRST_PIECE, Observation, Share
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.wire.observed import Ended, Event, Imported, Noted, Submitted


class Clock:
    """Time that passes only when something is observed."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    thread_time_ns = perf_counter_ns


class Peer(Observation):
    """Takes so many nanoseconds for each byte that it sees."""

    def __init__(self, clock: Clock, cost_ns: int) -> None:
        super().__init__(1, "peer", lambda *_: None)
        self._clock, self._cost_ns = clock, cost_ns
        self.got = b""
        self.over = False

    def saw(self, from_client: bool, data: object, timestamp_ns: int) -> None:
        raw = bytes(data)  # type: ignore[call-overload]
        assert not self.over
        self.got += raw
        self._clock.now_ns += len(raw) * self._cost_ns

    def ended(self, timestamp_ns: int) -> None:
        self.over = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for name in ("perf_counter_ns", "thread_time_ns"):
        monkeypatch.setattr(time, name, getattr(found, name))
    return found


def test_a_slice_ends_soon_whatever_messages_cost(clock: Clock) -> None:
    waiting = Backlog()
    dear = Peer(clock, 1500)
    data = Random(1).randbytes(128 << 10)
    waiting.chunks.append((dear, True, data, 1))
    waiting.chunks.append((dear, True, None, 2))
    longest, last = 0, 0
    while waiting.chunks:
        begin = clock.now_ns
        last = waiting.observe()
        longest = max(longest, clock.now_ns - begin)
    assert longest < 20_000_000  # the first piece shows how dear they are
    assert dear.got == data
    assert dear.over
    assert last == 2


def test_what_is_cheap_is_soon_observed_as_it_came(clock: Clock) -> None:
    waiting, cheap = Backlog(), Peer(clock, 1)
    assert cheap.piece == FIRST_PIECE
    for _ in range(10):
        waiting.chunks.append((cheap, True, bytes(128 << 10), 1))
    waiting.observe_all()
    assert cheap.piece >= 128 << 10
    assert len(cheap.got) == 10 * (128 << 10)


def test_order_is_kept_whatever_is_cut(clock: Clock) -> None:
    waiting, random = Backlog(), Random(7)
    peers = [Peer(clock, cost) for cost in (1, 500, 5000)]
    sent = dict.fromkeys(peers, b"")
    for _ in range(60):
        peer = random.choice(peers)
        data = random.randbytes(random.choice([1, 48, 5000, 60_000]))
        sent[peer] += data
        waiting.chunks.append((peer, random.random() < 0.5, data, 1))
        if random.random() < 0.3:
            waiting.observe()
    waiting.observe_all()
    assert {peer: peer.got for peer in peers} == sent


def test_who_is_far_behind_is_known(clock: Clock) -> None:
    waiting, much, many, little = Backlog(), *(Peer(clock, 1) for _ in range(3))
    for peer, data in ((much, bytes(600_000)), (little, b"x"), *itertools.repeat((many, b"x"), 300)):
        waiting.chunks.append((peer, True, data, 1))
    assert waiting.far_behind() == {much, many}
    waiting.observe_all()
    assert waiting.far_behind() == set()


def test_the_work_of_the_backlog_grows_as_what_waits() -> None:
    def prepare(size: int) -> object:
        waiting, peer = Backlog(), Observation(1, "peer", lambda *_: None)
        peer._observer = None
        waiting.chunks.extend([(peer, True, bytes(100), 1)] * size)
        return waiting.observe_all

    assert_grows_linearly(prepare, 20_000)  # type: ignore[arg-type]


def test_comments_on_what_was_not_understood_end_somewhere(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "out.pcapng") as writer:
        capture = RelayCapture(writer, "server", "hint")
        peer = Observation(1, "peer", lambda *_: None)
        capture.event(peer, Imported(1, DeviceInfo("1-1", 1, 2, Speed.HIGH, 1, 2), seen=True))
        for number in range(1000):
            capture.event(peer, Noted(2, f"nonsense {number}"))
    comments = [text for record in read_capture(tmp_path / "out.pcapng") for text in record.comments]
    output = [text for text in comments if "nonsense" in text]
    assert len(output) == 100
    assert output[-1].endswith("nonsense 99; no more such comments on this connection")


def test_incomplete_messages_share_their_memory() -> None:
    share = Share(limit=1000)
    kept: list[Event] = []
    large, small = (Observation(n, "peer", lambda _, events: kept.extend(events), share) for n in (1, 2))
    for peer in (large, small):
        for side, data in imported():
            peer.saw(side == CLIENT, data, 0)
    _, message = submit(1, Urb(TransferType.BULK, BULK_OUT, 700, bytes(700)))
    large.saw(True, message[:-1], 1)
    small.saw(True, message[:200], 2)
    assert not any(isinstance(event, Ended) for event in kept)
    small.saw(True, message[200:400], 3)
    (end,) = (event for event in kept if isinstance(event, Ended))
    assert "memory" in end.reason
    kept.clear()
    large.saw(True, message[-1:], 4)
    small.saw(True, message[400:], 5)
    assert [type(event) for event in kept] == [Submitted]  # the other one goes on
    large.ended(6)
    small.ended(6)
    assert share._total == 0
