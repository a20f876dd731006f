"""One reader, two users: stats takes large portions of a file, convert small ones that may come from a pipe."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest

from tests.builders.capture_files import Shown, classic, option, pcapng
from usbip_capture.convert.converter import CHUNK
from usbip_capture.errors import CaptureError
from usbip_capture.recordings.packets import MAX_INTERFACES, Interface, Packet
from usbip_capture.recordings.reading import check_beginning, first_link_type, open_capture, read_packets
from usbip_capture.recordings.source import Source
from usbip_capture.recordings.stream import Stream

TESTS = Path(__file__).parents[2]
GOLDEN = sorted(path for path in TESTS.rglob("*.pcap*") if path.is_file())
PACKETS = [Shown(1_000_000 * (1 + n), bytes([n]) * (n * 37 % 300)) for n in range(200)]
SECTION = pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
NANOSECONDS = option("<", 9, b"\x09")

Seen = list[tuple[int, int, bytes, int, list[str]]]


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) & 3)
    size = 12 + len(body)
    return pack("<II", kind, size) + body + pack("<I", size)


def interface(link_type: int = 1, options: bytes = b"") -> bytes:
    return block(1, pack("<HHI", link_type, 0, 0) + options)


def enhanced(time: int, data: bytes, number: int = 0) -> bytes:
    head = pack("<IIIII", number, time >> 32, time & 0xFFFFFFFF, len(data), len(data))
    return block(6, head + data)


def simple(data: bytes) -> bytes:
    return block(3, pack("<I", len(data)) + data)


def obsolete(time: int, data: bytes) -> bytes:
    return block(2, pack("<HHIIII", 0, 0, time >> 32, time & 0xFFFFFFFF, len(data), len(data)) + data)


MIXED = SECTION + interface(options=NANOSECONDS) + enhanced(7, b"one") + simple(b"two") + obsolete(9, b"three")
GENERATED = {
    "classic": classic(PACKETS, 1),
    "classic-big-ns": classic(PACKETS, 1, ">", tick_ns=1),
    "link-type-bits": classic(PACKETS, 0x14000001),
    "reserved-link-type-bits": classic(PACKETS, 0x03FF0001),
    "pcapng": pcapng(PACKETS, 1),
    "pcapng-big-ns": pcapng(PACKETS, 1, ">", option(">", 9, b"\x09"), 10**9),
    "powers-of-two": pcapng(PACKETS, 1, options=option("<", 9, b"\x94"), per_second=2**20),
    "mixed": MIXED,
    "sections": pcapng(PACKETS, 1) + pcapng(PACKETS, 276, ">") + MIXED,
    "unknown-blocks": SECTION + interface() + block(0xBAD, bytes(300_000)) + enhanced(1, b"x") + block(0xBAD, b""),
    "wild-times": SECTION + interface(options=NANOSECONDS) + enhanced(2**64 - 1, b"x") + enhanced(5, b"y"),
    "large": pcapng([Shown(1, bytes(200_000)), Shown(2, b"z" * 70_000)], 1),
    "cut-off": pcapng(PACKETS, 1)[:-7],
    "cut-off-classic": classic(PACKETS, 1)[:-7],
    "damaged": pcapng(PACKETS, 1) + b"\x06\0\0\0\x07\0\0\0" + bytes(40),
    "no-such-interface": SECTION + interface() + enhanced(1, b"x") + enhanced(2, b"y", number=1),
}


def seen(packets: Iterator[Packet]) -> tuple[Seen, str]:
    """What is read, and why no more of it."""
    found: Seen = []
    try:
        for known, time_ns, portion, start, end, missing, comments in packets:
            found.append((known.link_type, time_ns, portion[start:end], missing, comments))
    except CaptureError as error:
        return found, str(error)
    return found, ""


def for_stats(path: Path) -> tuple[Seen, str]:
    with open_capture(path) as capture:
        return seen(capture.packets)


def for_convert(path: Path) -> tuple[Seen, str]:
    with Source(path, chunk=CHUNK) as source:
        return seen(read_packets(source, max_packet=16 << 20))


def piecemeal(path: Path, size: int) -> tuple[Seen, str]:
    file = path.open("rb")
    with file:
        return seen(read_packets(Stream(str(path), lambda: file.read(size), size)))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_golden_captures_are_the_same_to_both(path: Path) -> None:
    expected = for_stats(path)
    assert expected[0]
    assert not expected[1]
    assert for_convert(path) == expected


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("raw", GENERATED.values(), ids=GENERATED)
def test_generated_captures_are_the_same_to_both(raw: bytes, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    expected = for_stats(path)
    assert expected[0]
    assert for_convert(path) == expected
    assert piecemeal(path, 977) == expected


@pytest.mark.parametrize("raw", [GENERATED["sections"], GENERATED["classic"], GENERATED["cut-off"]])
def test_a_pipe_byte_by_byte_is_the_same(raw: bytes, tmp_path: Path) -> None:
    path, fifo = tmp_path / "capture", tmp_path / "fifo"
    path.write_bytes(raw)
    os.mkfifo(fifo)

    def write() -> None:
        with open(fifo, "wb", buffering=0) as pipe:
            pipe.writelines(raw[at : at + 11] for at in range(0, len(raw), 11))

    writer = threading.Thread(target=write)
    writer.start()
    found, problem = for_convert(fifo)
    writer.join()
    expected, reason = for_stats(path)
    assert found == expected
    assert problem == reason.replace(str(path), str(fifo))


def test_simple_packets_have_the_time_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(MIXED + SECTION + interface() + simple(b"four"))
    found, _ = for_stats(path)
    assert [(time_ns, data) for _, time_ns, data, _, _ in found] == [
        (7, b"one"), (7, b"two"), (9, b"three"), (9, b"four"),
    ]  # fmt: skip


def test_link_types_have_16_bits(tmp_path: Path) -> None:
    for name in ("link-type-bits", "reserved-link-type-bits"):
        path = tmp_path / name
        path.write_bytes(GENERATED[name])
        assert {link_type for link_type, *_ in for_stats(path)[0]} == {1}


def test_times_that_no_clock_shows_are_0(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(GENERATED["wild-times"])
    assert [time_ns for _, time_ns, *_ in for_stats(path)[0]] == [0, 5]


def test_packets_are_places_in_the_portion_that_was_read() -> None:
    raw = pcapng(PACKETS, 1)
    portions = {id(portion) for _, _, portion, *_ in read_packets(Stream("x", iter([raw, b"", b""]).__next__))}
    assert len(portions) == 1


def test_what_nobody_reads_is_never_held() -> None:
    """What comes after a block of 64 MiB is in a portion without any of it."""
    parts = [SECTION + interface() + pack("<II", 0xBAD, (64 << 20) + 12)]
    parts += [bytes(1 << 20)] * 64 + [pack("<I", (64 << 20) + 12) + enhanced(1, b"x"), b"", b""]
    stream = Stream("x", iter(parts).__next__)
    assert [(end - start, len(portion)) for _, _, portion, start, end, _, _ in read_packets(stream)] == [(1, 36)]


def test_interfaces_are_bounded_where_they_are_kept() -> None:
    raw = (SECTION + interface() + enhanced(1, b"x")) * (MAX_INTERFACES + 1)
    kept: list[Interface] = []
    found, problem = seen(read_packets(Stream("x", iter([raw, b"", b""]).__next__), kept))
    assert len(found) == len(kept) == MAX_INTERFACES
    assert "one too many" in problem
    found, problem = seen(read_packets(Stream("x", iter([raw, b"", b""]).__next__)))
    assert (len(found), problem) == (MAX_INTERFACES + 1, "")
    raw = SECTION + interface() * (MAX_INTERFACES + 1)
    assert "one too many" in seen(read_packets(Stream("x", iter([raw, b"", b""]).__next__)))[1]


@pytest.mark.parametrize("raw", [classic([Shown(1, bytes(2000))], 1), pcapng([Shown(1, bytes(2 << 20))], 1)])
def test_who_holds_packets_asks_for_short_ones(raw: bytes) -> None:
    assert seen(read_packets(Stream("x", iter([raw, b"", b""]).__next__)))[1] == ""
    assert "damaged at byte" in seen(read_packets(Stream("x", iter([raw, b""]).__next__), max_packet=1000))[1]


@pytest.mark.parametrize("raw", [b"", b"GIF8", b"\x28\xb5\x2f\xfd", gzip.compress(b"hello", mtime=0)])
def test_both_report_the_same_of_what_is_not_a_capture(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(CaptureError) as first, open_capture(path):
        pass
    with Source(path, chunk=CHUNK) as source, pytest.raises(CaptureError) as second:
        check_beginning(source)
    assert str(first.value) == str(second.value)


def test_the_first_link_type_is_seen_without_taking_anything() -> None:
    raw = pcapng(PACKETS, 220)
    stream = Stream("x", iter([raw[:400], raw[400:], b"", b""]).__next__)
    assert first_link_type(stream) == 220
    assert len(seen(read_packets(stream))[0]) == len(PACKETS)
    assert first_link_type(Stream("x", iter([raw[:40]]).__next__)) is None


def test_a_live_source_reports_idleness_and_stops(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    try:
        raw = pcapng(PACKETS, 1)
        os.write(writer, raw[:5000])
        with Source(fifo, chunk=CHUNK) as source:
            idle: list[int] = []

            def on_idle() -> None:
                idle.append(source.taken)
                source.stop()

            source.on_idle = on_idle
            found, problem = seen(read_packets(source))
        assert idle == [5000]
        assert 10 < len(found) < len(PACKETS)
        assert "cut off" in problem
        assert source.stopped
    finally:
        os.close(writer)


@pytest.mark.parametrize("arguments", [["stats", "-"], ["convert", "-", os.devnull]], ids=["stats", "convert"])
def test_a_terminal_is_not_a_capture(arguments: list[str]) -> None:
    ours, terminal = os.openpty()
    try:
        command = [sys.executable, "-m", "usbip_capture.cli.main", *arguments]
        done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, timeout=30, check=False)
    finally:
        os.close(ours)
        os.close(terminal)
    assert done.returncode == 1
    assert "standard input is a terminal: give the capture's name, or pipe the capture in" in done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="this system has no /proc")
@pytest.mark.parametrize(
    "raw", [None, gzip.compress(b"", mtime=0)[:6] + b"damaged", gzip.compress(bytes(100), mtime=0)[:20]]
)
def test_a_source_that_cannot_be_read_is_closed(raw: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir() if raw is None else path.write_bytes(raw)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CaptureError), Source(path) as source:
        check_beginning(source)
    assert len(os.listdir("/proc/self/fd")) == before
