"""`capture.sinks`: files, FIFOs, standard output and streams, and the sentence when one cannot be written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from tests.builders.recording import INFO, run
from usbip_capture.capture.named_pipe import NamedPipeSink
from usbip_capture.capture.sinks import FileSink, PipeSink, ReaderGone, Sink, SinkAborted, StreamSink, open_sink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")

SMALL: list[Buffer] = [bytes([n % 256]) * 100 for n in range(5000)]
LARGE: list[Buffer] = [b"head", memoryview(bytes(range(256)) * 4000), b"", bytearray(b"tail" * 100_000)]

MANY: list[Buffer] = [bytes([n % 256]) * 5000 for n in range(1500)]  # more than one writev takes


def pipe_sink() -> tuple[PipeSink, int]:
    """A sink and the descriptor of its reader, which is non-blocking too."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return PipeSink("the pipe", writing), reading


def read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()


@pytest.mark.parametrize("buffers", [SMALL, LARGE, MANY, [], [b""]], ids=["small", "large", "many", "none", "empty"])
def test_a_file_holds_all_buffers(tmp_path: Path, buffers: list[Buffer]) -> None:
    sink = open_sink(tmp_path / "out")
    assert isinstance(sink, FileSink)
    sink.write(buffers)
    sink.write([b"more"])
    sink.close()
    sink.close()
    expected = b"".join(buffers) + b"more"
    assert (tmp_path / "out").read_bytes() == expected
    assert sink.written == len(expected)
    assert not sink.reader_gone()


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        open_sink(tmp_path / "out").close()
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_an_old_file_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"something longer")
    sink = open_sink(str(tmp_path / "out"))
    sink.write([b"new"])
    sink.close()
    assert (tmp_path / "out").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("", "it is a folder: add a file name"),
        ("missing/out", "there is no such folder: create it or choose another place"),
        ("file/out", "there is no such folder: create it or choose another place"),
        ("a" * 300, "File name too long: choose another place"),
    ],
)
def test_what_cannot_be_opened_gives_a_sentence(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    target = os.path.join(tmp_path, place)
    with pytest.raises(CaptureError) as caught:
        open_sink(target)
    assert str(caught.value) == f"the capture cannot be written to {target}: {reason}"


def test_a_full_disk_gives_a_sentence() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    sink = open_sink("/dev/full")
    with pytest.raises(CaptureError, match="the disk is full: free some space"):
        sink.write([b"x"])
    sink.close()


# -- FIFOs


def test_a_fifo_is_opened_when_its_reader_is_there(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    opened: list[Sink] = []
    opener = threading.Thread(target=lambda: opened.append(open_sink(fifo)))
    opener.start()
    reader.start()
    opener.join(20)
    (sink,) = opened
    assert isinstance(sink, PipeSink)
    sink.write(LARGE)
    sink.close()
    sink.close()
    reader.join(20)
    assert got == [b"".join(LARGE)]
    assert sink.written == len(got[0])


def test_waiting_for_a_reader_can_be_stopped(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    stop = threading.Event()
    errors: list[CaptureError] = []

    def wait() -> None:
        try:
            open_sink(fifo, stop)
        except CaptureError as error:
            errors.append(error)

    opener = threading.Thread(target=wait)
    opener.start()
    stop.set()
    opener.join(20)
    assert [str(error) for error in errors] == [f"nobody had opened {fifo} for reading when the capture was stopped"]


@pytest.mark.parametrize("buffers", [SMALL * 10, LARGE], ids=["small", "large"])
def test_a_reader_that_takes_little_at_a_time(buffers: list[Buffer]) -> None:
    sink, reading = pipe_sink()
    os.set_blocking(reading, True)
    got = bytearray()

    def read() -> None:
        while data := os.read(reading, 10_007):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    sink.write(buffers)
    sink.close()
    reader.join(20)
    os.close(reading)
    assert got == b"".join(buffers)


def test_a_reader_that_is_gone() -> None:
    sink, reading = pipe_sink()
    sink.write([b"x"])
    assert not sink.reader_gone()
    os.close(reading)
    assert sink.reader_gone()
    with pytest.raises(ReaderGone, match="the reader of the pipe is gone"):
        sink.write([b"y"])
    sink.close()


@pytest.mark.parametrize("abort_first", [True, False])
def test_a_reader_that_has_stopped_reading_can_be_given_up(abort_first: bool) -> None:
    sink, reading = pipe_sink()
    if abort_first:
        sink.abort()
    else:
        threading.Timer(0.05, sink.abort).start()
    with pytest.raises(SinkAborted, match="has stopped reading"):
        sink.write([bytes(8 << 20)])
    assert 0 < sink.written < 8 << 20
    sink.close()
    assert len(read_all(reading)) == sink.written


def test_a_reader_that_goes_while_a_write_waits_for_it() -> None:
    sink, reading = pipe_sink()
    threading.Timer(0.05, os.close, [reading]).start()
    with pytest.raises(ReaderGone):
        sink.write([bytes(8 << 20)])
    sink.close()


# -- streams and standard output


class Piecemeal(io.RawIOBase):
    """An unbuffered stream that takes little at a time."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:  # type: ignore[override]
        self.taken += data[:1000]
        return len(data[:1000])


class Silent(io.BytesIO):
    """A stream whose write does not return how much it took: all of it."""

    def write(self, data: Buffer) -> None:  # type: ignore[override]
        super().write(data)


def test_streams_that_differ() -> None:
    piecemeal, silent = Piecemeal(), Silent()
    for stream in (piecemeal, silent):
        sink = StreamSink(cast(BinaryIO, stream))
        sink.write(LARGE)
        sink.close()
        assert not stream.closed
        assert not sink.reader_gone()
    assert bytes(piecemeal.taken) == silent.getvalue() == b"".join(LARGE)


def test_a_closed_stream_gives_a_sentence() -> None:
    stream = io.BytesIO()
    sink = StreamSink(stream, "my stream")
    stream.close()
    with pytest.raises(CaptureError, match=r"the capture cannot be written to my stream: .*closed file"):
        sink.write([b"x"])


def test_a_stream_over_a_pipe_knows_its_reader() -> None:
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as stream:
        sink = StreamSink(stream)
        assert not sink.reader_gone()
        os.close(reading)
        assert sink.reader_gone()
        with pytest.raises(ReaderGone):
            sink.write([b"x"])


_WRITE_STDOUT = """
import sys
from usbip_capture.capture.sinks import open_sink
sink = open_sink("-")
sink.write([b"x" * 100, b"y" * 300_000])
sink.close()
"""


@pytest.mark.parametrize("to_file", [True, False])
def test_standard_output(tmp_path: Path, to_file: bool) -> None:
    command = [sys.executable, "-c", _WRITE_STDOUT]
    if to_file:
        with open(tmp_path / "out", "wb") as out:
            subprocess.run(command, stdout=out, check=True)
        got = (tmp_path / "out").read_bytes()
    else:
        got = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert got == b"x" * 100 + b"y" * 300_000


def test_a_terminal_is_refused() -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", _WRITE_STDOUT]
    run = subprocess.run(command, check=False, stdout=follower, stderr=subprocess.PIPE, text=True)
    os.close(leader)
    os.close(follower)
    assert "standard output is a terminal: redirect it" in run.stderr


def test_a_blocked_write_into_a_named_pipe_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    cancelled: list[int] = []

    def cancel(thread: int) -> None:  # stands for Windows, which makes the write fail
        cancelled.append(thread)
        os.close(reader)

    writer = PcapWriter(NamedPipeSink(str(path), cancel))
    channel = writer.add_usb_interface(INFO, server="pi")
    big = Urb(TransferType.BULK, 0x82, 65536)
    for _ in range(40):
        run(channel, big, Completion(0, 65536, bytes(65536)))
    writer.close(timeout=0.2)
    assert len(cancelled) == 1
    assert writer.error is None
    assert writer.dropped > 0
