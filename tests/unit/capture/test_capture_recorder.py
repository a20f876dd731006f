"""`PcapWriter` and its recorder: what is written, dropped, remarked and counted."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders.recording import DONE, INFO, URB, HeldWriter, events, finish, run, statistics
from tests.oracles.pcapng_reader import CapturedRecord, read_capture, read_items
from tests.waiting import wait_until
from usbip_capture.capture.channel import EVENT_COST
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Completion, TransferType, Urb


def test_a_capture_from_start_to_end(target: Path) -> None:
    with PcapWriter(target) as writer:
        channel = writer.add_usb_interface(INFO, server="pi:3241", product="Demo")
        before = time.time_ns()
        ids = [run(channel) for _ in range(3)]
        after = time.time_ns()
    assert ids == [1, 2, 3]
    assert (writer.received, writer.dropped, writer.written, writer.error) == (6, 0, 6, None)
    records = list(read_capture(target))
    times = [record.timestamp_ns for record in records]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    assert events(target) == [(kind, number) for number in ids for kind in "SC"]
    assert all(r.usb and (r.usb.busnum, r.usb.devnum) == (3, 4) for r in records)
    interface = records[0].interface
    assert interface.name == "usbip0"
    assert interface.description == "USB/IP pi:3241 1-1 1209:0001 Demo"
    assert (interface.speed, interface.snaplen, interface.received, interface.dropped) == (480_000_000, 262_144, 6, 0)


def test_interfaces_may_come_in_between(target: Path) -> None:
    with PcapWriter(target) as writer:
        first = writer.add_usb_interface(INFO, server="pi")
        run(first)
        writer.flush()
        second = writer.add_usb_interface(INFO, server="demo")
        assert run(second) == 2
        run(first)
    names = [record.interface.name for record in read_capture(target)]
    assert names == ["usbip0"] * 2 + ["usbip1"] * 2 + ["usbip0"] * 2


def test_a_capture_of_nothing_is_valid(target: Path) -> None:
    PcapWriter(target).close()
    (interface,) = read_items(target)
    assert not isinstance(interface, CapturedRecord)
    assert interface.name == "usbip0"


def test_a_stream_stays_open() -> None:
    stream = io.BytesIO()
    with PcapWriter(stream) as writer:
        run(writer.add_usb_interface(INFO, server="pi"))
    assert stream.getvalue().startswith(b"\x0a\x0d\x0d\x0a")
    writer.close()


def test_flush_is_done_when_it_returns(target: Path) -> None:
    with PcapWriter(target) as writer:
        run(writer.add_usb_interface(INFO, server="pi"))
        assert writer.flush(10)
        assert events(target) == [("S", 1), ("C", 1)]
    assert not writer.flush()


def test_each_event_is_written_without_being_asked_for(target: Path) -> None:
    with PcapWriter(target) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        for number in (0, 2, 4):
            assert writer.flush(10)  # the writer has nothing to do
            urb_id = channel.submitted(URB)
            wait_until("the submit is in the file", lambda: writer.written % 2)
            channel.completed(urb_id, URB, DONE)
            wait_until("the completion is in the file", lambda: not writer.written % 2)
            assert writer.written == number + 2


@pytest.mark.parametrize("snaplen", [0, 80, 1 << 20])
def test_snaplen(target: Path, snaplen: int) -> None:
    with PcapWriter(target, snaplen=snaplen) as writer:
        run(writer.add_usb_interface(INFO, server="pi"), Urb(TransferType.BULK, 0x81, 99), Completion(0, 99, bytes(99)))
    _, record = read_capture(target)
    assert record.interface.snaplen == (80 if snaplen == 80 else 262_144)
    assert (len(record.data), record.original_length) == (80 if snaplen == 80 else 163, 163)


@pytest.mark.parametrize("make", [bytearray, lambda data: memoryview(bytearray(data)), lambda data: array("B", data)])
def test_data_that_changes_later(target: Path, make: Callable[[bytes], bytearray]) -> None:
    data = make(b"first")
    with HeldWriter() as (writer, channel, sink):
        channel.submitted(Urb(TransferType.BULK, 0x02, 5, data))
        data[:] = make(b"later")
        target.write_bytes(finish(writer, sink))
    (record,) = read_capture(target)
    assert record.usb
    assert record.usb.data == b"first"


# -- the queue


def test_a_full_queue_drops_and_counts(target: Path) -> None:
    with HeldWriter(queue_bytes=100 * EVENT_COST) as (writer, channel, sink):
        ids = [run(channel) for _ in range(1000)]
        assert writer.received == 2000
        kept = [urb_id for urb_id in ids if urb_id]
        assert 40 <= len(kept) <= 50
        assert ids == kept + [0] * (1000 - len(kept))
        assert writer.dropped == 2000 - 2 * len(kept)
        target.write_bytes(finish(writer, sink))
    assert events(target) == [(kind, number) for number in kept for kind in "SC"]
    assert writer.written == 2 * len(kept)
    assert statistics(target) == (2000, writer.dropped, [])


def test_room_is_kept_for_completions(target: Path) -> None:
    large = Urb(TransferType.BULK, 0x81, 10_000)
    with HeldWriter(queue_bytes=64_000) as (writer, channel, sink):
        ids = [channel.submitted(large) for _ in range(10)]
        recorded = [urb_id for urb_id in ids if urb_id]
        while urb_id := run(channel):  # fill the queue with others
            recorded.append(urb_id)
        for urb_id in ids[:3]:
            channel.completed(urb_id, large, Completion(0, 10_000, bytes(10_000)))
        target.write_bytes(finish(writer, sink))
    found = events(target)
    assert [("C", urb_id) in found for urb_id in ids[:3]] == [True] * 3
    assert [number for kind, number in found if kind == "S"] == recorded


def test_the_queue_has_room_again_when_it_was_written(target: Path) -> None:
    with PcapWriter(target, queue_bytes=10_000) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        for _ in range(50):
            assert run(channel, Urb(TransferType.BULK, 0x02, 4000, bytes(4000)), Completion(0, 4000))
            assert writer.flush(10)
    assert (writer.written, writer.dropped) == (100, 0)


def test_a_thousand_threads_keep_their_order(target: Path) -> None:
    start = threading.Event()
    with PcapWriter(target) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")

        def produce(number: int) -> None:
            start.wait(20)
            for turn in range(3):
                run(channel, Urb(TransferType.BULK, 0x02, 3, bytes([*divmod(number, 256), turn])), Completion(0, 3))

        threads = [threading.Thread(target=produce, args=(number,)) for number in range(1000)]
        for thread in threads:
            thread.start()
        start.set()
        for thread in threads:
            thread.join(20)
    assert (writer.written, writer.dropped) == (6000, 0)
    records = list(read_capture(target))
    assert [r.timestamp_ns for r in records] == sorted(r.timestamp_ns for r in records)
    turns: dict[bytes, list[int]] = {}
    for record in records:
        if record.usb and record.usb.data:
            turns.setdefault(record.usb.data[:2], []).append(record.usb.data[2])
    assert list(turns.values()) == [[0, 1, 2]] * 1000
    pending: set[int] = set()
    for kind, urb_id in events(target):
        pending ^= {urb_id}
        assert (urb_id in pending) == (kind == "S")
    assert not pending


# -- comments


def comments(path: Path) -> list[list[str]]:
    return [record.comments for record in read_capture(path)]


def test_comments_and_labels(target: Path) -> None:
    with PcapWriter(target) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        channel.label = "enumeration"
        first = channel.submitted(URB)
        channel.label = None
        channel.comment("once")
        channel.comment("and once more")
        second = channel.submitted(URB)
        channel.completed(second, URB, DONE)
        channel.completed(first, URB, DONE)
        channel.comment("left over")
    assert comments(target) == [["enumeration"], ["once", "and once more"], [], ["enumeration"], ["left over"]]
    assert statistics(target) == (4, 0, [])


def test_a_comment_waits_for_an_event_that_is_kept(target: Path) -> None:
    with HeldWriter(queue_bytes=20 * EVENT_COST) as (writer, channel, sink):
        while run(channel):
            pass
        channel.comment("here I am")
        assert not run(channel)
        sink.go_on.set()
        assert writer.flush(10)
        assert run(channel)
        target.write_bytes(finish(writer, sink))
    assert [c for c in comments(target) if c] == [["here I am"]]
    assert comments(target)[-2] == ["here I am"]


@pytest.mark.parametrize("status", [-19, -108])
def test_a_device_that_goes_is_marked_once_each_time(target: Path, status: int) -> None:
    back = DeviceInfo("1-1", 3, 9, Speed.HIGH, 0x1209, 0x0001)
    with PcapWriter(target) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        for _ in range(2):
            run(channel, URB, Completion(status))
        channel.gone("the server closed the connection")
        channel.device(back)
        run(channel)
        channel.gone("its cable was pulled")
        channel.device(back)
        run(channel)
    marks = [["device gone" in comment for comment in each] for each in comments(target)]
    assert marks == [[], [True], [], [], [], [], [True], []]
    assert comments(target)[6][0].endswith("its cable was pulled")
    assert [r.usb.devnum for r in read_capture(target) if r.usb] == [4] * 4 + [9] * 4


@pytest.mark.parametrize(
    "arguments", [{"snaplen": 1}, {"snaplen": 63}, {"snaplen": -1}, {"capture_filter": 5}, {"on_end": 5}]
)
def test_what_cannot_be_meant_is_refused_before_anything_is_opened(arguments: dict[str, Any], target: Path) -> None:
    with pytest.raises((LocalProtocolError, TypeError), match="must"):
        PcapWriter(target, **arguments)
    assert not target.exists()


def test_a_clock_that_is_set_is_remarked_upon(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PcapWriter(target) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        run(channel)
        assert writer.flush(20)
        real = time.monotonic_ns
        monkeypatch.setattr(time, "monotonic_ns", lambda: real() - 3600 * 10**9)
        wait_until("the remark", lambda: channel._queue.remarks or channel._queue.items or writer._recorder._notes)
        run(channel)
    comments = [comment for record in read_capture(target) for comment in record.comments]
    (comment,) = [comment for comment in comments if "clock" in comment]
    assert comment.startswith("usbip-capture: this machine's clock jumped by +36")


def test_remarks_and_unlinks_without_an_end_take_a_bounded_part_of_memory() -> None:
    with HeldWriter(queue_bytes=4 << 20) as (writer, channel, sink):
        tracemalloc.start()
        try:
            for number in range(20_000):
                writer.comment(f"{number} " + "\N{GRINNING FACE}" * 10_000)
                channel.comment(f"{number} " + "x" * 10_000)
                channel.unlink(-1, number.to_bytes(8, "big"))
                channel.unlink(number + 1, number.to_bytes(8, "big"))
                if not number % 100:
                    run(channel)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        raw = finish(writer, sink)
    assert peak < 12 << 20
    assert b"further remarks found no room" in raw


@pytest.mark.parametrize("what", ["events", "remarks", "messages"])
def test_the_work_for_what_is_captured_grows_as_its_number(what: str) -> None:
    def seconds(count: int) -> float:
        with HeldWriter() as (writer, channel, sink):
            log = writer.add_log_interface("log")
            begun = time.thread_time()
            for number in range(count):
                if what == "events":
                    run(channel)
                elif what == "remarks":
                    channel.comment("x")
                else:
                    log.write([(number, b"x" * 20, ())])
            spent = time.thread_time() - begun
            finish(writer, sink)
        return spent

    assert min(seconds(16_000) for _ in range(3)) < 32 * max(min(seconds(1000) for _ in range(3)), 5e-4)  # 256: square
