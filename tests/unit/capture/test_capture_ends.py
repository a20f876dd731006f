"""`PcapWriter` and its recorder: how a capture ends."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.builders.recording import DONE, INFO, URB, HeldSink, HeldWriter, events, finish, run, statistics
from tests.oracles.pcapng_reader import CapturedRecord, read_capture, read_items
from tests.waiting import wait_until
from usbip_capture.capture.sinks import ReaderGone
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError
from usbip_capture.usb.urb import Completion, TransferType, Urb

needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_max_packets_is_exact(target: Path, count: int, caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[str] = []
    ended = threading.Event()

    def on_end(reason: str) -> None:
        reasons.append(reason)
        writer.close()
        ended.set()

    writer = PcapWriter(target, max_packets=count, on_end=on_end)
    channel = writer.add_usb_interface(INFO, server="pi")
    for _ in range(10):
        run(channel)
    assert ended.wait(5)  # half of what a `close` that waits for itself would take
    assert len(events(target)) == writer.written == writer.received == count
    assert channel.submitted(URB) == 0
    writer.close()
    assert (reasons, writer.error, len(events(target))) == (["count"], None, count)
    assert not caplog.records


def test_statistics_are_of_interfaces_that_are_in_the_file(target: Path) -> None:
    with HeldWriter(max_packets=2) as (writer, channel, sink):
        run(channel)
        run(writer.add_usb_interface(INFO, server="too late"))
        target.write_bytes(finish(writer, sink))
    assert [item.name for item in read_items(target) if not isinstance(item, CapturedRecord)] == ["usbip0"]
    assert statistics(target) == (2, 0, [])


def test_no_room_on_the_disk() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    reasons: list[str] = []
    writer = PcapWriter("/dev/full", on_end=reasons.append)
    run(writer.add_usb_interface(INFO, server="pi"))
    with pytest.raises(CaptureError, match="disk is full"):
        writer.close()
    writer.close()
    assert reasons == ["error"]
    assert str(writer.error) == (
        "the capture cannot be written to /dev/full: the disk is full: free some space or choose another place"
    )
    assert writer.written == 0
    assert writer.dropped == writer.received


def test_a_failure_in_between_counts_what_was_lost() -> None:
    held = HeldWriter(CaptureError("no more"))
    with held as (writer, channel, sink):
        for _ in range(5):
            run(channel)
        sink.go_on.set()
        wait_until("the capture ends", lambda: held.reasons == ["error"])
        assert (writer.received, writer.dropped, writer.written) == (10, 10, 0)
        assert channel.submitted(URB) == 0
        channel.completed(0, URB, DONE)
        assert writer.received == 10
        assert str(writer.error) == "no more"
        with pytest.raises(CaptureError, match="no more"):
            writer.close()
    assert (sink.closed, held.reasons) == (1, ["error"])


def test_a_fault_of_ours_ends_the_capture_with_a_sentence(caplog: pytest.LogCaptureFixture, target: Path) -> None:
    reasons: list[str] = []
    writer = PcapWriter(target, on_end=reasons.append)
    writer.add_usb_interface(INFO, server="pi").submitted(Urb(TransferType.BULK, 0x81, -1))
    with pytest.raises(CaptureError):
        writer.close()
    assert reasons == ["error"]
    assert "internal error" in str(writer.error)
    assert "the writer of the capture failed" in caplog.text


def test_a_reader_that_is_gone_is_a_normal_end() -> None:
    held = HeldWriter(ReaderGone("gone"))
    with held as (writer, channel, sink):
        run(channel)
        sink.go_on.set()
        wait_until("the capture ends", lambda: held.reasons == ["reader"])
        assert (writer.error, writer.dropped) == (None, 0)


@needs_fifo
def test_a_reader_that_goes_is_noticed_without_traffic(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    ended = threading.Event()
    reasons: list[str] = []

    def on_end(reason: str) -> None:
        reasons.append(reason)
        ended.set()

    with PcapWriter(fifo, on_end=on_end) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        assert writer.flush(10)
        os.close(reader)
        gone = time.monotonic()
        assert ended.wait(20)
        assert time.monotonic() - gone < 0.3
        assert (reasons, writer.error, channel.submitted(URB)) == (["reader"], None, 0)


@needs_fifo
def test_close_does_not_wait_for_a_reader_that_has_stopped(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = PcapWriter(fifo)
    channel = writer.add_usb_interface(INFO, server="pi")
    for _ in range(100):
        run(channel, Urb(TransferType.BULK, 0x81, 50_000), Completion(0, 50_000, bytes(50_000)))
    start = time.monotonic()
    writer.close()
    assert time.monotonic() - start < 0.5
    assert writer.error is None
    assert 0 < writer.written < 200
    assert writer.written + writer.dropped == writer.received == 200
    os.close(reader)


@needs_fifo
def test_close_waits_for_a_reader_that_is_slow(tmp_path: Path) -> None:
    fifo, copy = tmp_path / "fifo", tmp_path / "copy"
    os.mkfifo(fifo)
    stop = threading.Event()

    def read_slowly() -> None:
        with open(fifo, "rb", buffering=0) as stream, open(copy, "wb") as out:
            while data := stream.read(1 << 16):
                out.write(data)
                stop.wait(0.001)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    writer = PcapWriter(fifo)
    channel = writer.add_usb_interface(INFO, server="pi")
    for _ in range(200):
        run(channel, Urb(TransferType.BULK, 0x81, 20_000), Completion(0, 20_000, bytes(20_000)))
    writer.close()
    reader.join(20)
    assert (writer.written, writer.dropped) == (400, 0)
    assert statistics(copy) == (400, 0, [])
    assert len(events(copy)) == 400


def test_close_gives_up_on_a_stream_that_blocks() -> None:
    with HeldWriter() as (writer, channel, sink):
        run(channel)
        start = time.monotonic()
        writer.close(0.05)
        assert time.monotonic() - start < 1
        assert channel.submitted(URB) == 0
        sink.go_on.set()
    assert sink.closed == 1


def test_a_writer_that_is_forgotten_completes_its_capture(target: Path) -> None:
    writer = PcapWriter(target)
    run(writer.add_usb_interface(INFO, server="pi"))
    del writer
    assert events(target) == [("S", 1), ("C", 1)]
    assert statistics(target) == (2, 0, [])


def test_errors_of_opening_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such folder"):
        PcapWriter(tmp_path / "missing" / "capture.pcapng")


@needs_fifo
def test_a_slow_reader_cannot_hold_up_the_end(tmp_path: Path) -> None:
    fifo, copy = tmp_path / "fifo", tmp_path / "copy.pcapng"
    os.mkfifo(fifo)
    ended = threading.Event()

    def read_slowly() -> None:
        with open(fifo, "rb", buffering=0) as source, open(copy, "wb") as target:
            while data := source.read(16384):
                target.write(data)
                if not ended.is_set():
                    time.sleep(0.02)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    writer = PcapWriter(fifo)
    channel = writer.add_usb_interface(INFO, server="pi")
    for _ in range(1000):
        run(channel, Urb(TransferType.BULK, 0x81, 20_000), Completion(0, 20_000, bytes(20_000)))
    writer.close(0.5, at_most=0.1)
    ended.set()
    reader.join(20)
    assert writer.dropped > 100
    assert writer.written + writer.dropped == 2000
    assert statistics(copy) == (2000, writer.dropped, [])
    assert len(events(copy)) == writer.written


def test_remarks_without_a_packet_are_written_soon(target: Path) -> None:
    with PcapWriter(target) as writer:
        writer.comment("too early for any interface")
        wait_until("a packet of its own", lambda: b"too early" in target.read_bytes())
        channel = writer.add_usb_interface(INFO, server="pi")
        channel.comment("and here")
        wait_until("another one", lambda: b"and here" in target.read_bytes())
        run(channel)
        writer.comment("at the end")
    assert [record.comments for record in read_capture(target)] == [
        ["too early for any interface"], ["and here"], [], [], ["at the end"],
    ]  # fmt: skip
    names = {item.name: item.link_type for item in read_items(target) if not isinstance(item, CapturedRecord)}
    assert names == {"usbip0": 220, "notes0": 252}


def test_a_writer_that_finds_no_thread_reports_it(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    sink = HeldSink()
    with pytest.raises(CaptureError, match="cannot begin: can't start new thread: end other programs"):
        PcapWriter(sink)
    assert sink.closed == 1


@pytest.mark.parametrize("where", ["write", "close"])
def test_a_writer_without_memory_reports_it(where: str) -> None:
    class Sink(HeldSink):
        def close(self) -> None:
            super().close()
            if where == "close":
                raise MemoryError

    sink = Sink(MemoryError() if where == "write" else None)
    sink.go_on.set()
    writer = PcapWriter(sink)
    with pytest.raises(CaptureError, match=r"memory|MemoryError"):
        writer.close(timeout=20)
    assert sink.closed == 1
