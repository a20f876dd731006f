"""A forked child leaves no trace in what its parent captures, whatever the kind of output."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders.recording import INFO, run
from tests.oracles.pcapng_reader import read_capture
from tests.programs.forked import forked
from usbip_capture.capture.files import RotatingSink, file_sink
from usbip_capture.capture.rotation import Rotation
from usbip_capture.capture.sinks import PipeSink, Sink, StreamSink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.live.socket_sink import SocketSink
from usbip_capture.serial_port.capture import SharedCapture
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


def packets(raw: bytes, folder: Path) -> int:
    """How many are in a capture, which is read to its end."""
    again = folder / "again.pcapng"
    again.write_bytes(gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw)
    return len(list(read_capture(again)))


class Reader:
    """Reads a descriptor to its end, on a thread."""

    def __init__(self, fd: int) -> None:
        self.data = b""
        self._fd = fd
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with os.fdopen(self._fd, "rb") as file:
            while piece := file.read1(1 << 16):
                self.data += piece

    def all(self) -> bytes:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the output does not end"
        return self.data


@contextmanager
def outputs(kind: str, folder: Path) -> Iterator[tuple[Sink, Callable[[], list[bytes]]]]:
    """A sink, and what came out of it, file by file, once it is closed."""
    path = folder / "out.pcapng"
    if kind in ("file", "gzip"):
        path = folder / ("out.pcapng.gz" if kind == "gzip" else path.name)
        yield file_sink(str(path)), lambda: [path.read_bytes()]
    elif kind == "rotating":
        rotating = RotatingSink(str(path), Rotation(packets=30))
        yield rotating, lambda: [Path(name).read_bytes() for name in rotating.files]
    elif kind == "stream":
        with open(path, "wb", buffering=0) as stream:
            yield StreamSink(stream), lambda: [path.read_bytes()]
    elif kind == "pipe":
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        reader = Reader(ours)
        yield PipeSink("pipe", theirs), lambda: [reader.all()]
    else:
        here, there = socket.socketpair()
        reader = Reader(there.detach())
        with here:
            yield SocketSink(here, "guest"), lambda: [reader.all()]


@pytest.mark.parametrize("kind", ["file", "gzip", "rotating", "stream", "pipe", "socket"])
@pytest.mark.parametrize("closes", [False, True], ids=["leaves", "closes"])
def test_a_child_leaves_no_trace(kind: str, closes: bool, tmp_path: Path) -> None:
    with outputs(kind, tmp_path) as (sink, came_out):
        writer = PcapWriter(sink)
        channel = writer.add_usb_interface(INFO, server="pi")
        for _ in range(20):
            run(channel)
        assert writer.flush(20)

        def child() -> None:
            run(channel)
            assert not writer.flush(1)
            if closes:
                writer.close()

        assert forked(child) == 0
        for _ in range(20):
            run(channel)
        writer.close()
        assert writer.written == 80
        assert sum(packets(raw, tmp_path) for raw in came_out()) == 80


def test_one_that_fails_in_the_child_does_not_keep_the_others(tmp_path: Path) -> None:
    class Failing:
        def forked(self) -> None:
            raise RuntimeError("no")

    things = [Failing(), Failing()]
    ours, theirs = os.pipe()

    class Noting:
        def forked(self) -> None:
            os.write(theirs, b"x")

    noting = [Noting() for _ in range(8)]
    kept: list[forks.Inherited] = [*things, *noting]
    for thing in kept:
        forks.disown_in_children(thing)
    assert forked() == 0
    os.close(theirs)
    with os.fdopen(ours, "rb") as output:
        assert output.read() == b"x" * 8


def test_a_child_does_not_write_into_a_capture_of_its_parents_ports(tmp_path: Path) -> None:
    path = str(tmp_path / "port.pcapng")
    shared = SharedCapture.open(path)
    run(shared.channel(ServerAddress("demo"), INFO))

    def child() -> None:
        for _ in range(2):
            shared.close()  # as a port does that the child has inherited
        with pytest.raises(Exception, match="give another file"):
            SharedCapture.open(path)
        assert forked(grandchild) == 0
        SharedCapture.open(path + "2").close()

    def grandchild() -> None:
        with pytest.raises(Exception, match="give another file"):
            SharedCapture.open(path)

    assert forked(child) == 0
    run(shared.channel(ServerAddress("demo"), INFO))
    shared.close()
    assert packets(Path(path).read_bytes(), tmp_path) == 4
