"""Many who watch one server: packed once for all, none lost or doubled, and nobody waits for one who stalls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.lab import lab
from tests.web.test_captures import client_of, echo
from usbip_capture.capture.shared_writer import SharedWriter
from usbip_capture.capture.sinks import FileSink, Sink
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device
from usbip_capture.records.usbmon import COMPLETE, SUBMIT, UsbmonPacker
from usbip_capture.server_stream.capture import StreamedCapture, Wanted
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.sessions.session_capture import DESCRIPTORS
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import Buffer, TransferType, Urb
from usbip_capture.web import dashboard as served
from usbip_capture.web import outlet, shared_streams
from usbip_capture.web.api import captures
from usbip_capture.web.roles import LOOK

VIEWERS = 32
EVERYTHING = Wanted()
LARGE = bytes(range(256)) * 256


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("config", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", "off")
    return tmp_path


def place(made: served.Dashboard) -> Dashboard:
    return Dashboard.parse(made.urls[0], token=made.side.tokens.add("test-look", LOOK))


def urbs(path: Path, *, bulk: bool = False) -> list[tuple[int, int, int, int, bytes]]:
    """Time, id, type, status and data of each, in order."""
    return [
        (record.timestamp_ns, usb.id, usb.type, usb.status, usb.data)
        for record in read_capture(path)
        if (usb := record.usb) is not None and (not bulk or usb.xfer_type == TransferType.BULK)
    ]


def is_earlier(record: CapturedRecord) -> bool:
    return DESCRIPTORS in record.comments


@pytest.mark.slow
def test_32_viewers_see_the_same_which_is_packed_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []

    def counting(pack: Callable[..., int]) -> Callable[..., int]:
        def count(packer: UsbmonPacker, *args: Any) -> int:
            packed.append(args[2])
            return pack(packer, *args)

        return count

    for name in ("submit", "complete"):
        monkeypatch.setattr(UsbmonPacker, name, counting(getattr(UsbmonPacker, name)))
    paths = [home / f"{number}.pcapng" for number in range(VIEWERS)]
    with dashboard() as (server, made), client_of(server) as device, ExitStack() as stack:
        at = place(made)
        captures = [StreamedCapture(at, lambda path=path: FileSink(str(path)), Wanted()) for path in paths]  # type: ignore[misc]
        for capture in captures:
            stack.enter_context(closing(capture))
        wait_until("all have joined", lambda: all(capture.urbs for capture in captures))  # what was read before
        assert (made.side.streams.taken, made.side.shared.running) == (VIEWERS, 1)
        packed.clear()
        before = [capture.urbs for capture in captures]
        echo(device, 50)
        wait_until("all have it", lambda: all(c.urbs == b + 100 for c, b in zip(captures, before, strict=True)))
        assert len(packed) == 2 * 100
    first, *others = [urbs(path, bulk=True) for path in paths]
    assert len(first) == 200
    assert others == [first] * (VIEWERS - 1)
    learnt, *same = [[r.usb.setup for r in read_capture(path) if is_earlier(r) and r.usb] for path in paths]
    assert set_configuration(1).pack() in learnt
    assert same == [learnt] * (VIEWERS - 1)
    wait_until("nothing is captured any more", lambda: not made.side.shared.running)


def test_different_wishes_are_different_captures(home: Path) -> None:
    wishes = [Wanted(), Wanted(["1-1"]), Wanted(capture_filter="bulk"), Wanted(snaplen=96), Wanted(record_unlinks=True)]
    with dashboard() as (server, made), client_of(server) as device, ExitStack() as stack:
        at = place(made)
        for number, wanted in enumerate([*wishes, *wishes]):
            path = str(home / f"{number}.pcapng")
            stack.enter_context(closing(StreamedCapture(at, lambda path=path: FileSink(path), wanted)))  # type: ignore[misc]
        wait_until("all have joined", lambda: made.side.shared.running == len(wishes))
        assert made.side.streams.taken == 2 * len(wishes)
        echo(device)


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[SharedWriter]:
    """Those of the captures that were begun."""
    begun: list[SharedWriter] = []

    class Kept(SharedWriter):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            begun.append(self)

    monkeypatch.setattr(shared_streams, "SharedWriter", Kept)
    return begun


def look(made: served.Dashboard, at: Dashboard, path: Path, wanted: Wanted = EVERYTHING) -> None:
    """Join, see something, and leave."""
    with closing(StreamedCapture(at, lambda: FileSink(str(path)), wanted)) as capture:
        wait_until("it has joined", lambda: capture.urbs)
    wait_until("it has left", lambda: not made.side.shared.running)


def test_who_joins_soon_after_another_has_the_capture_that_is_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, writers: list[SharedWriter]
) -> None:
    monkeypatch.setattr(shared_streams, "LINGER", 1000.0)
    with dashboard() as (_, made), client_of(made.side.server) as device:
        at = place(made)
        for number in range(3):
            look(made, at, home / f"{number}.pcapng")
            echo(device)
        assert len(writers) == 1
        look(made, at, home / "other.pcapng", Wanted(capture_filter="control"))
        wait_until("only the latest goes on", lambda: [writer.flush(10) for writer in writers] == [False, True])
    assert not writers[1].flush(10)
    learnt, *same = [[r.usb.setup for r in read_capture(home / f"{n}.pcapng") if r.usb] for n in range(3)]
    assert set_configuration(1).pack() in learnt
    assert same == [learnt] * 2


def test_a_capture_that_nobody_sees_ends(
    home: Path, monkeypatch: pytest.MonkeyPatch, writers: list[SharedWriter]
) -> None:
    for module in (shared_streams, captures):
        monkeypatch.setattr(module, "LINGER", 0.0)
    with dashboard() as (_, made), client_of(made.side.server):
        look(made, place(made), home / "out.pcapng")
        wait_until("it has ended", lambda: not writers[0].flush(10))


class Stalling(Sink):
    """Takes nothing until it goes on, then all into a file."""

    def __init__(self, path: Path) -> None:
        super().__init__("a viewer that stalls")
        self.goes_on = threading.Event()
        self._file = FileSink(str(path))

    def write(self, buffers: Sequence[Buffer]) -> None:
        assert self.goes_on.wait(120)
        self._file.write(buffers)

    def close(self) -> None:
        self._file.close()


def test_a_viewer_that_stalls_costs_nobody_anything_and_is_shown_what_it_lacks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "MOST", 1 << 20)
    slow, fast = home / "slow.pcapng", home / "fast.pcapng"
    sink = Stalling(slow)
    with dashboard() as (server, made), client_of(server) as device, asking(made) as asks:
        at = place(made)
        with (
            closing(StreamedCapture(at, lambda: sink, Wanted())) as stalled,
            closing(StreamedCapture(at, lambda: FileSink(str(fast)), Wanted())) as other,
        ):
            wait_until("both have joined", lambda: made.side.streams.taken == 2 and other.urbs)
            done = other.urbs
            while not made.side.shared.dropped:  # until all buffers on the way are full, too
                device.run(Urb(TransferType.BULK, BULK_OUT, len(LARGE), LARGE), 60)
                assert device.run(Urb(TransferType.BULK, BULK_IN, len(LARGE)), 60).data == LARGE
                done += 2
                wait_until("it is seen by who reads", lambda done=done: other.urbs == done)  # type: ignore[misc]
            assert made.side.shared.running == 1
            sink.goes_on.set()
            wait_until("it is shown", lambda: stalled.dropped == made.side.shared.dropped)
            assert stalled.received == stalled.written + stalled.dropped
            assert other.dropped == 0
            text = asks.get("/metrics").text
            assert f"usbip_stream_dropped_total {stalled.dropped}\n" in text
            assert "usbip_streams 2\n" in text
            has = stalled.urbs
            echo(device)
            wait_until("both go on", lambda: (stalled.urbs, other.urbs) == (has + 2, done + 2))
    found = [comment for record in read_capture(slow) for comment in record.comments]
    assert f"usbip-capture: {stalled.dropped} packets found no room: this viewer is slow" in found
    assert len(urbs(slow)) + stalled.dropped == len(urbs(fast))


@contextmanager
def counting_client(device: Device, depth: int = 4) -> Iterator[None]:
    """Threads that each write numbers and read them back, until the end of the block."""
    ended = threading.Event()

    def work(which: int) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            data = which.to_bytes(4, "little") + number.to_bytes(4, "little")
            assert device.run(Urb(TransferType.BULK, BULK_OUT, 8, data), 60).status == 0
            assert device.run(Urb(TransferType.BULK, BULK_IN, 8), 60).status == 0

    threads = [threading.Thread(target=work, args=(which,), daemon=True) for which in range(depth)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def check(path: Path) -> int:
    """Nothing is lost or doubled in it: how many writes it has."""
    out: set[int] = set()
    seen: dict[bytes, list[int]] = {}
    for _, number, kind, _, data in urbs(path, bulk=True):
        if kind == SUBMIT:
            assert number not in out
            out.add(number)
            if data:
                seen.setdefault(data[:4], []).append(int.from_bytes(data[4:], "little"))
        if kind == COMPLETE:
            out.remove(number)
    assert len(out) <= 4
    for numbers in seen.values():
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return sum(map(len, seen.values()))


@pytest.mark.parametrize(
    "times", [pytest.param(10, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.long)]
)
def test_joining_and_leaving_while_a_client_reads_loses_and_doubles_nothing(home: Path, times: int) -> None:
    whole = home / "whole.pcapng"
    with dashboard() as (server, made), client_of(server) as device:
        at = place(made)
        with closing(StreamedCapture(at, lambda: FileSink(str(whole)), Wanted(snaplen=96))) as capture:
            wait_until("it has joined", lambda: capture.urbs)
            with counting_client(device):
                for number in range(times):
                    path = home / f"{number % 50}.pcapng"
                    shared = Wanted(snaplen=96 if number % 3 else 104)  # with others, or alone
                    with closing(StreamedCapture(at, lambda path=path: FileSink(str(path)), shared)) as joined:  # type: ignore[misc]
                        wait_until("it sees something", lambda joined=joined: joined.urbs >= 20)  # type: ignore[misc]
                    assert check(path) >= 4
            assert (capture.dropped, made.side.shared.dropped) == (0, 0)
        wait_until("all have left", lambda: not made.side.streams.taken)
    assert check(whole) > 4 * times


def test_a_device_that_is_unplugged_and_back_is_commented_on_and_goes_on(home: Path) -> None:
    path = home / "out.pcapng"
    with (
        lab(home / "machine") as found,
        closing(StreamedCapture(place(found.made), lambda: FileSink(str(path)), Wanted())) as capture,
    ):
        with found.client("1-3") as client:
            wait_until("it is captured", lambda: capture.urbs >= 4)
            found.unplug("1-3")
            assert client.ended.wait(60)
        wait_until("it is reported", lambda: b"unplugged: 1-3" in path.read_bytes())
        found.plug_again("1-3")
        wait_until("it is exported again", lambda: "1-3" in [info.busid for info in found.server.devices])
        before = capture.urbs
        with found.client("1-3"):
            wait_until("it goes on", lambda: capture.urbs >= before + 8)
    records = list(read_capture(path))
    assert [text for record in records for text in record.comments if "device gone" in text]
    assert {record.interface.name for record in records if record.usb} == {"usbip0"}  # it keeps its interface
    events = [record for record in records if record.interface.name == "events0"]
    kinds = [
        kind for record in events for kind in ("unplugged: 1-3", "plugged in: 1-3") if kind.encode() in record.data
    ]
    assert kinds == ["unplugged: 1-3", "plugged in: 1-3"]
