"""Who watches sessions sees each URB once, whenever it joins and leaves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest

from tests.fakes.idle_device import IdleDevice
from usbip_capture.device import Transfer
from usbip_capture.lending.lender import Exported
from usbip_capture.server.rules import ExportRule
from usbip_capture.sessions.session import DeviceSession, Watcher
from usbip_capture.sessions.session_capture import DeviceChoice
from usbip_capture.sessions.sessions import Sessions
from usbip_capture.tap import Tap
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion, TransferType, Urb

JOINS = 1000
IN_FLIGHT = 8
EXPORTED = Exported(IdleDevice().info, ExportRule.parse("all"), serial="A1")


class Recording(Tap):
    """events: of each URB its id as the session's first tap has it, and whether it was completed."""

    def __init__(self) -> None:
        self.events: list[tuple[Urb, bool]] = []
        self.at_start: list[Urb] = []
        self.requests: list[Urb] = []
        self.losses: list[str] = []
        self._ids: dict[int, Urb] = {}

    def submitted(self, urb: Urb) -> int:
        self.events.append((urb, False))
        return self._number(urb)

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        assert self._ids.pop(urb_id) is urb
        self.events.append((urb, True))

    def unlink(self, urb_id: int, message: bytes) -> None:
        raise AssertionError

    def _number(self, urb: Urb) -> int:
        number = len(self.events) + len(self.at_start)
        self._ids[number] = urb
        return number


class Joining(Watcher[Recording]):
    def __init__(self) -> None:
        self.taps: list[Recording] = []

    @property
    def only(self) -> Recording:
        (found,) = self.taps
        return found

    def has_seen_something(self) -> bool:
        return bool(self.only.events)

    def tap(self, session: DeviceSession) -> Recording:
        self.taps.append(Recording())
        return self.taps[-1]

    def earlier(self, tap: Recording, requests: Sequence[tuple[Urb, Completion]]) -> None:
        tap.requests += [urb for urb, _ in requests]

    def in_flight(self, tap: Recording, urb: Urb) -> int:
        tap.at_start.append(urb)
        return tap._number(urb)

    def ended(self, session: DeviceSession, tap: Recording, loss: str) -> None:
        tap.losses.append(loss)


def bulk() -> Urb:
    return Urb(TransferType.BULK, 0x81, 64)


def flying(events: Sequence[tuple[Urb, bool]]) -> list[Urb]:
    """What is out after these events."""
    out: dict[Urb, None] = {}
    for urb, is_completed in events:
        if is_completed:
            del out[urb]
        else:
            out[urb] = None
    return list(out)


def test_a_thousand_watchers_that_join_under_load_miss_nothing_and_see_nothing_twice() -> None:
    """Compared with one that was there from the beginning to the end, as usbmon is."""
    idle, sessions, whole = IdleDevice(), Sessions(), Joining()
    sessions.join(whole)
    device = sessions.observed(idle, EXPORTED)
    arrived, stopping = threading.Condition(), threading.Event()

    def submits() -> None:
        while not stopping.is_set():
            with arrived:
                arrived.wait_for(lambda: len(idle.pending) < IN_FLIGHT or stopping.is_set())
                device.submit(Transfer(bulk()))
                arrived.notify_all()

    def completes() -> None:
        while not stopping.is_set():
            with arrived:
                arrived.wait_for(lambda: len(idle.pending) > 1 or stopping.is_set())
                transfer = idle.pending.pop(len(idle.pending) // 2) if idle.pending else None
                arrived.notify_all()
            if transfer is not None:
                transfer.finish(Completion(0, 64, bytes(64)))

    threads = [threading.Thread(target=submits), threading.Thread(target=completes)]
    for thread in threads:
        thread.start()
    joined = []
    try:
        for _ in range(JOINS):
            watcher = Joining()
            joined.append(watcher)
            sessions.join(watcher)
            with arrived:
                assert arrived.wait_for(watcher.has_seen_something, 60)
            sessions.leave(watcher)
        last = Joining()
        sessions.join(last)
        with arrived:
            assert arrived.wait_for(last.has_seen_something, 60)
        joined.append(last)
    finally:
        stopping.set()
        with arrived:
            arrived.notify_all()
        for thread in threads:
            thread.join(60)
    for transfer in idle.pending:
        transfer.finish(Completion(-ECONNRESET))
    device.close()

    everything = whole.only.events
    places = {event: place for place, event in enumerate(everything)}
    assert len(places) == len(everything)
    begins = []
    for watcher in joined:
        tap = watcher.only
        begin = places[tap.events[0]]
        begins.append(begin)
        assert tap.events == everything[begin : begin + len(tap.events)]
        assert tap.at_start == flying(everything[:begin])
    assert joined[-1].only.events[-1] == everything[-1]
    assert all(one < other for one, other in pairwise(begins))


def test_what_was_learnt_before_comes_first_and_the_end_is_reported() -> None:
    idle, sessions, watcher = IdleDevice(), Sessions(lambda busid: f"client of {busid}"), Joining()
    device = sessions.observed(idle, EXPORTED)
    learnt = [Urb.control(get_descriptor(1, 0, 0, 18).pack()), Urb.control(set_configuration(1).pack())]
    for urb in (*learnt, bulk()):
        device.submit(Transfer(urb))
        idle.pending.pop().finish(Completion(0, 0))
    sessions.join(watcher)
    sessions.join(watcher)  # which is there already
    assert watcher.only.requests == learnt
    assert watcher.only.events == []
    device.close()
    device.close()
    assert watcher.only.losses == [""]


def test_who_has_left_is_not_called_for_what_was_out() -> None:
    idle, sessions, watcher = IdleDevice(), Sessions(), Joining()
    device = sessions.observed(idle, EXPORTED)
    device.submit(Transfer(bulk()))
    sessions.join(watcher)
    sessions.leave(watcher)
    idle.pending.pop().finish(Completion(0, 64, bytes(64)))
    device.close()
    assert len(watcher.only.at_start) == 1
    assert (watcher.only.events, watcher.only.losses) == ([], [])


@pytest.mark.parametrize("at", ["submitted", "completed"])
def test_one_that_fails_is_shown_nothing_more_and_harms_nobody(
    at: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> int:
        raise RuntimeError("a fault of it")

    idle, sessions, failing, other = IdleDevice(), Sessions(), Joining(), Joining()
    device = sessions.observed(idle, EXPORTED)
    for watcher in (failing, other):
        sessions.join(watcher)
    monkeypatch.setattr(failing.only, at, fails)
    for _ in range(3):
        transfer = Transfer(bulk())
        device.submit(transfer)
        idle.pending.pop().finish(Completion(0, 64, bytes(64)))
        assert transfer.completion is not None
    device.close()
    assert len(other.only.events) == 6
    assert len(failing.only.events) == (at == "completed")
    assert caplog.text.count("is not seen any longer") == 1


def test_one_that_fails_as_a_session_begins_keeps_no_client_from_its_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(session: DeviceSession) -> Recording:
        raise RuntimeError("a fault of it")

    sessions, failing, other = Sessions(), Joining(), Joining()
    monkeypatch.setattr(failing, "tap", fails)
    for watcher in (failing, other):
        sessions.join(watcher)
    device = sessions.observed(IdleDevice(), EXPORTED)
    device.submit(Transfer(bulk()))
    assert len(other.only.events) == 1
    assert "is not seen by one who watches" in caplog.text
    device.close()


def test_devices_are_chosen_by_patterns() -> None:
    session = DeviceSession(IdleDevice(), EXPORTED, lambda busid: "")
    for patterns in ((), ("1-1",), ("1209:1",), ("1-9", "1209:1:A1"), ("all",)):
        assert DeviceChoice(patterns).includes(session), patterns
    for patterns in (("1-2",), ("1209:2",), ("1209:1:B1",)):
        assert not DeviceChoice(patterns).includes(session), patterns
