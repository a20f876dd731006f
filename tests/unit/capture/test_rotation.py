"""Several files and compressed ones: each can be read by itself, and nothing is lost between them."""

from __future__ import annotations

import errno
import gzip
import os
import time
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from usbip_capture.capture.files import GzipSink, RotatingSink, file_sink
from usbip_capture.capture.rotation import Rotation, file_name
from usbip_capture.capture.sinks import FileSink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.recordings.reading import open_capture
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Completion, TransferType, Urb

INFO = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1)
URB = Urb(TransferType.BULK, 0x81, 64)


def capture(writer: PcapWriter, urbs: int) -> None:
    """So many URBs; the first half on one interface, the rest on another one."""
    for number in range(urbs):
        if number in (0, urbs // 2):
            channel = writer.add_usb_interface(INFO, server=f"pi{number}")
        urb_id = channel.submitted(URB)
        channel.completed(urb_id, URB, Completion(0, 4, number.to_bytes(4, "little")))
    writer.close()


def test_what_is_understood() -> None:
    assert Rotation.parse(["filesize:5", "files:3"]) == Rotation(size=5000, files=3)
    assert Rotation.parse(["packets:5", "duration:2", "interval:60"]) == Rotation(2, 60, 0, 5)


@pytest.mark.parametrize("text", ["", "size:1", "packets:", "packets:0", "packets:-1", "packets:x", "files:9"])
def test_what_is_not(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        Rotation.parse([text])


def due(rotation: Rotation, now: float = 100.0, size: int = 10, packets: int = 1) -> bool:
    return rotation.due(now=now, started=100.0, size=size, packets=packets)


def test_when_a_file_is_full() -> None:
    assert [due(Rotation(size=10), size=size) for size in (10, 11)] == [False, True]
    assert [due(Rotation(packets=2), packets=packets) for packets in (1, 2)] == [False, True]
    assert [due(Rotation(duration=5), now) for now in (104.9, 105.0)] == [False, True]
    assert [due(Rotation(interval=60), now) for now in (119.9, 120.0)] == [False, True]
    assert not due(Rotation(size=1, packets=1, duration=1, interval=1), 999.0, 999, packets=0)


def test_names() -> None:
    now = time.mktime((2024, 1, 2, 3, 4, 5, 0, 0, -1))
    assert file_name("a/b.c.pcapng", 7, now) == "a/b.c_00007_20240102030405.pcapng"
    assert file_name("x.pcapng.gz", 123456, now) == "x_123456_20240102030405.pcapng.gz"
    assert file_name("x", 1, now) == "x_00001_20240102030405"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_packet_is_in_one_of_the_files(tmp_path: Path, suffix: str) -> None:
    sink = RotatingSink(str(tmp_path / f"ring.pcapng{suffix}"), Rotation(packets=7))
    capture(PcapWriter(sink), 20)
    assert len(sink.files) == 6
    records = []
    for path in sink.files:
        if suffix:
            Path(path).write_bytes(gzip.decompress(Path(path).read_bytes()))
        found = list(read_capture(path))
        assert 0 < len(found) <= 7
        records += found
    assert [r.data[64:68] for r in records[1::2]] == [n.to_bytes(4, "little") for n in range(20)]
    assert [r.interface.description for r in records] == ["USB/IP pi0 1-1 1209:0001"] * 20 + [
        "USB/IP pi10 1-1 1209:0001"
    ] * 20


def interfaces(path: str) -> dict[str, tuple[int | None, int | None]]:
    """Received and dropped, as a file has for each of its interfaces."""
    with open_capture(path) as found:
        packets = list(found.packets)
        assert len(packets) == sum((i.received or 0) - (i.dropped or 0) for i in found.interfaces)
        return {interface.name: (interface.received, interface.dropped) for interface in found.interfaces}


def test_every_file_has_its_own_statistics(tmp_path: Path) -> None:
    sink = RotatingSink(str(tmp_path / "ring.pcapng"), Rotation(packets=8))
    capture(PcapWriter(sink), 10)
    found = [interfaces(path) for path in sink.files]
    assert found == [
        {"usbip0": (8, 0)},
        {"usbip0": (2, 0), "usbip1": (6, 0)},
        {"usbip0": (0, 0), "usbip1": (4, 0)},
    ]


def test_what_was_dropped_is_reported_once(tmp_path: Path) -> None:
    sink = RotatingSink(str(tmp_path / "ring.pcapng"), Rotation(packets=2))
    writer = PcapWriter(sink, queue_bytes=2500)
    channel = writer.add_usb_interface(INFO, server="pi")
    large = Urb(TransferType.BULK, 0x01, 4096, bytes(4096))
    for _ in range(3):
        urb_id = channel.submitted(URB)
        channel.completed(urb_id, URB, Completion(0, 4, b"1234"))
        assert not channel.submitted(large)
        writer.flush()
    writer.close()
    found = [interfaces(path)["usbip0"] for path in sink.files]
    assert len(found) == 3
    assert sum(dropped or 0 for _, dropped in found) == writer.dropped == 3
    assert sum(received or 0 for received, _ in found) == 9


def test_a_ring_keeps_the_newest(tmp_path: Path) -> None:
    clock = iter(range(1000, 2000))
    sink = RotatingSink(str(tmp_path / "ring.pcapng"), Rotation(packets=4, files=2), lambda: next(clock))
    capture(PcapWriter(sink), 10)
    assert sorted(map(str, tmp_path.iterdir())) == sorted(sink.files)
    assert [len(list(read_capture(path))) for path in sink.files] == [4, 4]
    assert list(read_capture(sink.files[-1]))[-1].data[64:68] == b"\x09\0\0\0"


def test_an_old_file_that_is_gone_already(tmp_path: Path) -> None:
    sink = RotatingSink(str(tmp_path / "r.pcapng"), Rotation(packets=2, files=1))
    Path(sink.files[0]).unlink()
    writer = PcapWriter(sink)
    capture(writer, 4)
    assert writer.error is None
    assert [len(list(read_capture(path))) for path in sink.files] == [2]


def test_size_counts_the_head_of_each_file(tmp_path: Path) -> None:
    sink = RotatingSink(str(tmp_path / "r.pcapng"), Rotation(size=1000))
    capture(PcapWriter(sink), 30)
    sizes = [os.path.getsize(path) for path in sink.files[:-1]]
    assert len(sizes) > 3
    assert all(500 < size <= 1000 for size in sizes)


def test_gzip_can_be_read_before_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng.gz"
    sink = file_sink(str(path))
    assert isinstance(sink, GzipSink)
    sink.write([b"hello ", b"world"])
    import zlib

    assert zlib.decompressobj(31).decompress(path.read_bytes()) == b"hello world"
    sink.close()
    sink.close()
    assert gzip.decompress(path.read_bytes()) == b"hello world"
    assert type(file_sink(str(tmp_path / "y.pcapng"))) is FileSink


def test_a_full_disk_leaves_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    path = tmp_path / "x.pcapng.gz"
    sink = GzipSink(str(path))
    sink.write([b"kept"])
    real = os.writev

    def full(fd: int, buffers: list[bytes]) -> int:
        os.write(fd, b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(CaptureError, match="the disk is full"):
        sink.write([b"lost"])
    monkeypatch.setattr(os, "writev", real)
    sink.close()
    assert zlib.decompressobj(31).decompress(path.read_bytes()) == b"kept"


def test_no_place_for_the_next_file(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    sink = RotatingSink(str(folder / "r.pcapng"), Rotation(packets=2))
    Path(sink.files[0]).unlink()
    folder.rmdir()
    writer = PcapWriter(sink)
    with pytest.raises(CaptureError, match="no such folder"):
        capture(writer, 4)
