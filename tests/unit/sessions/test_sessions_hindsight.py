"""What is kept of devices, for those who join later: each URB once, in its order, within its bounds."""

from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.fakes.idle_device import IdleDevice
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from usbip_capture import PcapWriter
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.capture.recent import RecentUrbs
from usbip_capture.capture.sinks import Sink
from usbip_capture.capture.span import Span
from usbip_capture.device import Device, Transfer
from usbip_capture.errors import LocalProtocolError
from usbip_capture.lending.lender import Exported
from usbip_capture.server.rules import ExportRule
from usbip_capture.sessions.session_capture import DESCRIPTORS, DeviceChoice, SessionCapture
from usbip_capture.sessions.sessions import Sessions
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Completion, TransferType, Urb

EXPORTED = Exported(IdleDevice().info, ExportRule.parse("all"), serial="A1")
ALL = Span(0, 1 << 30)


class Joined:
    """A capture of the sessions, into a file."""

    def __init__(self, sessions: Sessions, path: Path, capture_filter: str = "", *, hindsight: bool = True) -> None:
        self._sessions = sessions
        self._path = path
        self.writer = PcapWriter(path, capture_filter=capture_filter)
        self._capture = SessionCapture(self.writer, DeviceChoice(), hindsight=hindsight)
        sessions.join(self._capture)

    def records(self) -> list[CapturedRecord]:
        self._sessions.leave(self._capture)
        self.writer.close()
        return list(read_capture(self._path))


class Used:
    """A device of which a test completes the URBs."""

    def __init__(self, sessions: Sessions) -> None:
        self.idle = IdleDevice()
        self.device: Device = sessions.observed(self.idle, EXPORTED)

    def submit(self, text: bytes) -> Transfer:
        transfer = Transfer(Urb(TransferType.BULK, 0x02, len(text), text))
        self.device.submit(transfer)
        return transfer

    def does(self, *texts: bytes) -> None:
        for text in texts:
            self.submit(text).finish(Completion(0, len(text)))


def events(records: list[CapturedRecord]) -> list[tuple[str, bytes]]:
    """S or C, and the data of the URB; bulk only."""
    known = {r.usb.id: bytes(r.usb.data) for r in records if r.usb is not None and r.usb.data}
    return [
        (chr(r.usb.type), known.get(r.usb.id, b""))
        for r in records
        if r.usb is not None and r.usb.xfer_type == 3
    ]  # fmt: skip


def both(*texts: bytes) -> list[tuple[str, bytes]]:
    return [(kind, text) for text in texts for kind in "SC"]


def comments(records: list[CapturedRecord]) -> list[str]:
    return [text for record in records for text in record.comments]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", Span(30.0, 16 << 20)),
        ("16MiB", Span(0.0, 16 << 20)),
        ("30s,16MiB", Span(30.0, 16 << 20)),
        ("1GiB, 500ms", Span(0.5, 1 << 30)),
        ("1.5 min,128kB", Span(90.0, 128_000)),
    ],
)
def test_how_much_is_kept(text: str, span: Span) -> None:
    assert Span.parse(text) == span


@pytest.mark.parametrize(
    "text", ["", "30", "s", "30s,20s", "1MiB,2MiB", "30s;1MiB", "-1s", "0s", "25h", "1B", "2GiB", "ns"]
)
def test_what_cannot_be_kept(text: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"such as 30s,16MiB|cannot be kept"):
        Span.parse(text)


def test_a_capture_has_what_came_before_it_and_all_from_then_on(tmp_path: Path) -> None:
    sessions = Sessions(keeps=ALL)
    used = Used(sessions)
    descriptor = Transfer(Urb.control(get_descriptor(1, 0, 0, 18).pack()))
    used.device.submit(descriptor)
    descriptor.finish(Completion(0, 18, bytes(18)))
    used.does(b"one", b"two")
    out = used.submit(b"out")
    joined = Joined(sessions, tmp_path / "a.pcapng")
    without = Joined(sessions, tmp_path / "b.pcapng", hindsight=False)
    used.does(b"three")
    out.finish(Completion(0, 3))
    used.does(b"four")
    records = joined.records()
    assert events(records) == [*both(b"one", b"two"), ("S", b"out"), *both(b"three"), ("C", b"out"), *both(b"four")]
    assert DESCRIPTORS in records[0].comments
    times = [record.timestamp_ns for record in records]
    assert times == sorted(times)
    assert [text for text in comments(records) if "before this capture began" in text][2:] == [
        "usbip-capture: kept by the server: what happened before this capture began"
    ]
    (began,) = [r for r in records if "usbip-capture: this capture began here" in r.comments]
    assert events(records[records.index(began) :])[:2] == both(b"three")
    late = without.records()
    assert events(late) == [("S", b"out"), *both(b"three"), ("C", b"out"), *both(b"four")]
    assert IN_FLIGHT in comments(late)
    used.device.close()


def test_a_client_that_has_left_and_the_next_one(tmp_path: Path) -> None:
    """What the failed one did is there, though nobody has the device any more; the next one has the same interface."""
    sessions = Sessions(keeps=ALL)
    used = Used(sessions)
    used.does(b"fails")
    used.device.close()
    joined = Joined(sessions, tmp_path / "a.pcapng")
    again = Used(sessions)
    again.does(b"again")
    later = Joined(sessions, tmp_path / "b.pcapng")
    for capture in (joined, later):
        records = capture.records()
        assert events(records) == both(b"fails", b"again")
        assert len({record.interface.name for record in records if record.usb is not None}) == 1
    again.device.close()


def test_nothing_is_kept_where_it_is_off(tmp_path: Path) -> None:
    sessions = Sessions()
    used = Used(sessions)
    used.does(b"before")
    used.device.close()
    assert not Joined(sessions, tmp_path / "a.pcapng").records()


def test_a_filter_is_applied_to_it(tmp_path: Path) -> None:
    sessions = Sessions(keeps=ALL)
    used = Used(sessions)
    used.does(b"one")
    assert not events(Joined(sessions, tmp_path / "a.pcapng", "ep == 0x81").records())
    assert events(Joined(sessions, tmp_path / "b.pcapng", "ep == 0x02").records()) == both(b"one")
    used.device.close()


def test_what_is_older_is_forgotten() -> None:
    recent = RecentUrbs(Span(10.0, 1 << 20))
    now_ns = time.time_ns()
    for age in (30, 20, 5, 1):
        recent.submitted(age, Urb(TransferType.BULK, 0x81, 64), None, now_ns - (age + 100) * 10**9)
        recent.completed(age, Completion(0, 64, bytes(64)), now_ns - age * 10**9)
    assert [round((now_ns - urb.completed_ns) / 1e9) for urb in recent.since(0)] == [5, 1]


@pytest.mark.parametrize("size", [0, 64, 4096, 100_000])
def test_memory_is_what_was_allowed(size: int) -> None:
    limit = 1 << 20
    recent = RecentUrbs(Span(0, limit))

    def work(count: int) -> None:
        for number in range(count):
            recent.submitted(number, Urb(TransferType.BULK, 0x02, size, bytearray(size), bytes(8)))
            recent.completed(number, Completion(0, size, memoryview(bytearray(size))))

    tracemalloc.start()
    try:
        work(2 * limit // (640 + 2 * size) + 10)
        once = tracemalloc.get_traced_memory()[0]
        work(2 * limit // (640 + 2 * size) + 10)
        assert tracemalloc.get_traced_memory()[0] < limit * 1.03
        assert once < limit * 1.05
    finally:
        tracemalloc.stop()
    assert recent.since(0)


def test_devices_that_are_gone_do_not_add_up() -> None:
    sessions = Sessions(keeps=ALL)
    for number in range(200):
        idle = IdleDevice()
        sessions.observed(idle, Exported(idle.info, ExportRule.parse("all"), serial=str(number))).close()
    assert len(sessions._kept) <= 65


def test_those_who_join_under_load_have_the_whole_of_it_each_urb_once(tmp_path: Path) -> None:
    """Compared with one that was there all the time."""
    sessions = Sessions(keeps=ALL)
    whole = Joined(sessions, tmp_path / "whole.pcapng")
    used, stopping, some = Used(sessions), threading.Event(), threading.Event()

    def works() -> None:
        number, flying = 0, [used.submit(b"first")]
        while not stopping.is_set() and number < 20_000:
            number += 1
            flying.append(used.submit(number.to_bytes(4, "big")))
            if number % 7:
                flying.pop(number % len(flying)).finish(Completion(0, 4))
            if len(flying) > 200:
                for transfer in flying[:150]:
                    transfer.finish(Completion(0, 4))
                del flying[:150]
            if number == 500:
                some.set()
            if number > 500:
                stopping.wait(0.0002)

    working = threading.Thread(target=works)
    working.start()
    assert some.wait(60)
    joined = [Joined(sessions, tmp_path / f"{number}.pcapng") for number in range(4)]
    stopping.set()
    working.join(60)
    everything = events(whole.records())
    for capture in joined:
        found = events(capture.records())
        assert capture.writer.dropped == 0
        assert len(found) == len(everything)
        assert found == everything
    used.device.close()


class Stalled(Sink):
    """Takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__("stalled")
        self.go_on = threading.Event()

    def write(self, buffers: object) -> None:
        self.go_on.wait(60)

    def close(self) -> None:
        pass

    def forget(self) -> None:
        pass


def test_a_capture_that_takes_nothing_holds_up_nobody() -> None:
    sessions = Sessions(keeps=ALL)
    used = Used(sessions)
    used.does(*[b"x"] * 2000)
    sink = Stalled()
    writer = PcapWriter(sink)
    joining = threading.Thread(target=sessions.join, args=(SessionCapture(writer, DeviceChoice()),))
    joining.start()
    used.does(*[b"y"] * 2000)  # and another client attaches
    other = IdleDevice()
    sessions.observed(other, Exported(other.info, ExportRule.parse("all"), serial="B2")).close()
    joining.join(60)
    assert not joining.is_alive()
    sink.go_on.set()
    writer.close()
    used.device.close()
