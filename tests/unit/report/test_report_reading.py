"""Captures of every form: the same packets give the same, and what cannot be read is reported in a sentence."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.capture_files import (
    Shown,
    big_endian,
    classic,
    option,
    pcapng,
    read_classic,
    usbpcap,
    usbpcap_stages,
    without_padding,
)
from tests.oracles.pcapng_reader import read_capture
from usbip_capture.errors import CaptureError
from usbip_capture.recordings.reading import open_capture
from usbip_capture.report.measure import Measured, measure
from usbip_capture.report.text import text_report

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("**/capture.pcap*"))  # those of others are not described as by tshark
RAW = (GOLDEN / "serial" / "capture.pcap").read_bytes()
PACKETS = read_classic(RAW)
TSRESOL_NS = option("<", 9, b"\x09")


def reported(raw: bytes, folder: Path, name: str = "capture") -> list[str]:
    path = folder / name
    path.write_bytes(raw)
    measured = measure(path)
    assert measured.problem is None
    return text_report(measured.statistics)


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r" +", " ", re.sub(r"\d[\d.]* (ns|µs|ms|s)\b", "T", line)) for line in lines]


def packets_of(path: Path) -> list[tuple[int, bytes, list[str]]]:
    with open_capture(path) as capture:
        return [(stamp, data[start:end], comments) for _, stamp, data, start, end, _, comments in capture.packets]


def mapped(change: object) -> list[Shown]:
    assert callable(change)
    return [Shown(stamp, change(data)) for stamp, data in PACKETS]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_golden(case: Path) -> None:
    lines = text_report(measure(case).statistics)
    assert "\n".join(lines) + "\n" == case.with_name("expected.txt").read_text()


@pytest.mark.parametrize(
    "raw",
    [
        classic(PACKETS, 220, tick_ns=1),
        classic(mapped(big_endian), 220, ">"),
        classic(mapped(big_endian), 220, ">", tick_ns=1),
        classic(mapped(without_padding), 189),
        classic(PACKETS, 220 | 0x14000000),
        pcapng(PACKETS, 220),
        pcapng(mapped(big_endian), 220, ">"),
        pcapng(PACKETS, 220, options=TSRESOL_NS, per_second=10**9),
        pcapng(PACKETS, 220, options=option("<", 9, b"\x94"), per_second=2**20),
        gzip.compress(RAW, mtime=0),
        gzip.compress(RAW[:5000], mtime=0) + gzip.compress(RAW[5000:], mtime=0) + bytes(512),
        gzip.compress(pcapng(PACKETS, 220), mtime=0),
    ],
    ids=["ns", "big", "big-ns", "189", "fcs-bits", "pcapng", "pcapng-big", "pcapng-ns", "pcapng-2^-20", "gzip",
         "gzip-members", "pcapng-gzip"],
)  # fmt: skip
def test_every_form_means_the_same(raw: bytes, tmp_path: Path) -> None:
    expected = (GOLDEN / "serial" / "expected.txt").read_text().splitlines()
    found = reported(raw, tmp_path)
    if b"\x09\x00\x01\x00\x94" in raw:
        # In powers of two they are cut off otherwise.
        found, expected = without_times(found), without_times(expected)
    assert found == expected


def test_time_stamps_with_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    options = TSRESOL_NS + option("<", 14, (1000).to_bytes(8, "little"))
    path.write_bytes(pcapng([Shown(5, b"x")], 220, options=options, per_second=10**9))
    assert [stamp for stamp, _, _ in packets_of(path)] == [1_000_000_000_005]


def test_usbpcap_gives_the_same(tmp_path: Path) -> None:
    """But for what it does not have: the packets that are no transfers of URBs are none there either."""
    expected = [line[:54].rstrip() for line in (GOLDEN / "serial" / "expected.txt").read_text().splitlines()]
    found = [line[:54].rstrip() for line in reported(classic(mapped(usbpcap), 249), tmp_path)]
    assert found[1:] == expected[1:]
    assert found[0] == "capture: USBPcap"


def test_usbpcap_with_each_stage_in_a_packet_gives_the_same(tmp_path: Path) -> None:
    control = [p for p in PACKETS if p.data[9] == 2]
    stages = [Shown(stamp, data) for stamp, event in control for data in usbpcap_stages(event)]
    now, old = (reported(classic(raw, link), tmp_path)[2:] for raw, link in ((control, 220), (stages, 249)))
    assert now == old


def test_blocks_are_those_of_python_pcapng(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    path.write_bytes(pcapng(PACKETS, 220, options=TSRESOL_NS, per_second=10**9))
    theirs = [(record.timestamp_ns, record.data, record.comments) for record in read_capture(path)]
    assert packets_of(path) == theirs
    assert len(theirs) == len(PACKETS)


def test_a_named_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with open(fifo, "wb", buffering=0) as pipe:
            pipe.writelines(RAW[at : at + 977] for at in range(0, len(RAW), 977))

    writer = threading.Thread(target=write)
    writer.start()
    measured = measure(fifo)
    writer.join()
    assert text_report(measured.statistics) == (GOLDEN / "serial" / "expected.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"file is empty$"),
        (b"\n\r", r"file is not a capture, it begins with 0a 0d"),
        (bytes.fromhex("0d0a0d0a 1c000000 4d3c2b1a"), r"0d 0a 0d 0a: its line ends were changed as those of a text"),
        (b"GIF89a...", r'file is not a capture, it begins with "GIF8": give a pcapng or pcap file'),
        (b"\xff\xfe\x00\x01abc", r"begins with ff fe 00 01"),
        (b"\x28\xb5\x2f\xfd rest", r"is packed with zstd: unpack it first"),
        (gzip.compress(b"", mtime=0), r"file is empty$"),
        (gzip.compress(b"hello", mtime=0), r'begins with "hell"'),
        (RAW[:20], r"file is cut off at byte 20, in its header"),
        (classic([Shown(1, bytes(60))], 1), r"has nothing of USB: link type 1 \(Ethernet\): not USB"),
        (pcapng([Shown(1, bytes(60))], 276), r"link type 276 \(Linux cooked\): not USB"),
        (classic([], 266), r"link type 266 \(USB of macOS\): not URBs of a host"),
        (classic([], 4711), r"link type 4711: not USB"),
        (bytes.fromhex("0a0d0d0a 00000000 4d3c2b1a"), r"is damaged at byte 0: a block of 0 bytes"),
        (bytes.fromhex("0a0d0d0a ffffffff 4d3c2b1a") + bytes(100), r"damaged at byte 0: a block of 4294967295 bytes"),
        (bytes.fromhex("0a0d0d0a 1c000000 4d3c2b1a 01000000"), r"cut off at byte 16, in the middle of a block"),
        (bytes.fromhex("0a0d0d0a 0c000000 00000000 0c000000"), r"a section without a byte order"),
        (pcapng([], 220)[:28], r"is empty: it has no interface"),
    ],
)
def test_files_that_are_no_captures_of_usb(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=sentence) as caught:
        measure(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="missing cannot be read: No such file"):
        measure(tmp_path / "missing")
    with pytest.raises(CaptureError, match="cannot be read: Is a directory"):
        measure(tmp_path)
    with pytest.raises(CaptureError, match="cannot be read: embedded null byte"):
        measure("a\0b")


def test_names_of_any_bytes_can_be_printed(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\x1b[2J")
    with pytest.raises(CaptureError) as caught:
        measure(name)
    assert str(caught.value).endswith("/caf\\xe9\\x1b[2J cannot be read: No such file or directory")


@pytest.mark.parametrize(
    "raw", [RAW, pcapng(PACKETS, 220), gzip.compress(RAW, mtime=0)], ids=["pcap", "pcapng", "gzip"]
)
def test_cut_anywhere_reports_what_came_before(raw: bytes, tmp_path: Path) -> None:
    whole = len(PACKETS)
    path = tmp_path / "cut"
    before = 0
    for size in range(100, len(raw), 641):
        path.write_bytes(raw[:size])
        measured = measured_or_not(path)
        if measured is None:
            continue
        packets = sum(totals.packets for totals in measured.statistics.interfaces.values())
        assert before <= packets < whole
        before = packets
        if measured.problem is not None:
            assert "is cut off at byte" in str(measured.problem)
    assert before > whole / 2


def measured_or_not(path: Path) -> Measured | None:
    with contextlib.suppress(CaptureError):
        return measure(path)
    return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(st.data())
@pytest.mark.parametrize(
    "raw",
    [pcapng(PACKETS[-60:], 220, options=TSRESOL_NS), classic(PACKETS[-60:], 220), classic(mapped(usbpcap)[-60:], 249)],
    ids=["pcapng", "pcap", "usbpcap"],
)
def test_hostile_bytes_give_nothing_but_sentences(raw: bytes, tmp_path: Path, data: st.DataObject) -> None:
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(4, len(changed))) :]
    path = tmp_path / "hostile"
    path.write_bytes(gzip.compress(changed, 1) if data.draw(st.booleans()) else changed)
    measured = measured_or_not(path)
    if measured is not None:
        assert all(line.isprintable() for line in text_report(measured.statistics))
