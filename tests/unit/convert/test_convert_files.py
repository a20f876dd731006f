"""What can be converted from and into: file formats, compression, pipes, damage; and what the command reports."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.conversion import convert, event
from tests.builders.tcp_recording import START_NS, packet, recording, segments
from tests.builders.usbip_sessions import session
from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_capture, read_items
from tests.oracles.usbmon_comparison import read_events
from tests.waiting import wait_until
from usbip_capture.cli import convert as progress
from usbip_capture.cli.main import main
from usbip_capture.errors import CaptureError

SEGMENTS = segments(session())
RECORDING = recording(SEGMENTS)
EXPECTED = convert(RECORDING).urbs()
GOLDEN = Path(__file__).parents[2] / "golden"


def classic(order: str, magic: int, tick_ns: int, link_type: int = 1) -> bytes:
    out = [pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)]
    for segment in SEGMENTS:
        seconds, rest = divmod(segment.timestamp_ns, 10**9)
        data = packet(segment)
        out += [pack(order + "IIII", seconds, rest // tick_ns, len(data), len(data)), data]
    return b"".join(out)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    return pack(order + "II", kind, size) + body + pack(order + "I", size)


def pcapng(order: str = "<", resolution: int | None = None, kind: int = 6, offset_s: int = 0) -> bytes:
    """A section with these kinds of packet blocks: 6 enhanced, 2 obsolete, 3 simple."""
    ticks = 10**6 if resolution is None else 2 ** (resolution & 127) if resolution & 128 else 10**resolution
    options = b"" if resolution is None else pack(order + "HHB3x", 9, 1, resolution)
    if offset_s:
        options += pack(order + "HHq", 14, 8, offset_s)
    options += bytes(4)
    out = [block(order, 0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))]
    out.append(block(order, 1, pack(order + "HHI", 1, 0, 0) + options))
    out.append(block(order, 5, pack(order + "III", 0, 0, 0)))  # statistics: left out
    for segment in SEGMENTS:
        data = packet(segment)
        time = (segment.timestamp_ns - offset_s * 10**9) * ticks // 10**9
        high, low = time >> 32, time & 0xFFFFFFFF
        body = {
            6: pack(order + "IIIII", 0, high, low, len(data), len(data)),
            2: pack(order + "HHIIII", 0, 0, high, low, len(data), len(data)),
            3: pack(order + "I", len(data)),
        }[kind]
        out.append(block(order, kind, body + data))
    return b"".join(out)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "tick_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_classic_pcap(order: str, magic: int, tick_ns: int) -> None:
    got = convert(classic(order, magic, tick_ns))
    assert got.urbs() == EXPECTED
    assert got.records[0].timestamp_ns in {s.timestamp_ns for s in SEGMENTS}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("resolution", [None, 6, 9, 3, 0x80 | 20])
def test_pcapng_times(order: str, resolution: int | None) -> None:
    got = convert(pcapng(order, resolution))
    assert got.urbs() == EXPECTED
    exact = {s.timestamp_ns for s in SEGMENTS}
    assert all(min(abs(r.timestamp_ns - t) for t in exact) < 1_000_000 for r in got.records)


def test_pcapng_time_offset() -> None:
    assert convert(pcapng("<", 9, offset_s=5000)).records[0].timestamp_ns in {s.timestamp_ns for s in SEGMENTS}


@pytest.mark.parametrize("kind", [2, 3])
def test_other_packet_blocks(kind: int) -> None:
    assert convert(pcapng(kind=kind)).urbs() == EXPECTED


def test_sections_one_after_the_other() -> None:
    both = convert(pcapng("<", 9) + pcapng(">", 6))
    assert both.urbs() == EXPECTED * 2  # the same connection once more, with the same ports


@pytest.mark.parametrize("cut", [0, 999])
def test_gzip(cut: int) -> None:
    raw = gzip.compress(RECORDING[:cut]) + gzip.compress(RECORDING[cut:])
    assert convert(raw).urbs() == EXPECTED
    assert convert(raw + bytes(600)).urbs() == EXPECTED


# -- damage


def test_cut_off_recording_is_converted_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcapng"
    for raw in (RECORDING[:-100], gzip.compress(RECORDING)[:-40], pcapng()[:-10]):
        tcp.write_bytes(raw)
        assert main(["convert", str(tcp), str(usb)]) == 1
        got = [event(r.usb) for r in read_capture(usb) if r.usb]
        assert got == EXPECTED[: len(got)]
        assert len(got) > 10
        error = capsys.readouterr().err
        assert "cut off" in error
        assert "what came before was converted" in error


@pytest.mark.parametrize("raw", [b"", b"\xd4\xc3", b"#!/bin/sh\n" * 50, gzip.compress(b"no recording at all", mtime=0)])
def test_what_is_no_recording(raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcapng"
    tcp.write_bytes(raw)
    assert main(["convert", str(tcp), str(usb)]) == 1
    assert ("is not a capture, it begins with" if raw else "is empty") in capsys.readouterr().err
    assert not usb.exists()


def test_output_is_kept_when_the_input_is_no_recording(tmp_path: Path) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcapng"
    tcp.write_text("nothing")
    usb.write_text("precious")
    assert main(["convert", str(tcp), str(usb)]) == 1
    assert main(["convert", str(usb), str(usb)]) == 1
    assert usb.read_text() == "precious"


def test_swapped_arguments_write_nothing_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcapng"
    tcp.write_bytes(RECORDING)
    assert main(["convert", str(tcp), str(usb)]) == 0
    assert main(["convert", str(usb), str(tcp)]) == 1
    assert "link type 220 (USB as usbmon has it): a recording of TCP is needed" in capsys.readouterr().err
    assert tcp.read_bytes() == RECORDING


def test_same_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp = tmp_path / "tcp.pcap"
    tcp.write_bytes(RECORDING)
    assert main(["convert", str(tcp), str(tcp)]) == 1
    assert "name another file" in capsys.readouterr().err
    assert tcp.read_bytes() == RECORDING


@given(st.integers(0, 100_000))
def test_damaged_bytes_are_no_fault_of_ours(seed: int) -> None:
    random = Random(seed)
    raw = bytearray(random.choice([RECORDING, pcapng(), pcapng(">", 9)]))
    for _ in range(random.randrange(1, 12)):
        raw[random.randrange(24, len(raw))] = random.randrange(256)
    try:
        convert(bytes(raw))
    except CaptureError as error:
        assert "damaged" in str(error) or "cut off" in str(error)  # noqa: PT017, it may also go well


class Terminal(io.StringIO):
    """Standard error as a person has it."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "_PROGRESS", 0)
    tcp = tmp_path / "tcp.pcap"
    tcp.write_bytes(recording(segments(session(rounds=200))))
    assert main(["convert", str(tcp), str(tmp_path / "usb.pcapng")]) == 0
    *shown, last = terminal.getvalue().split("\r")
    percents = [int(line.partition("%")[0]) for line in shown if line]
    assert percents == sorted(percents)
    assert percents[0] < 50 < percents[-1] <= 100
    assert last.startswith("\033[Kusbip-capture: 1 session, 1 device, 1202 URBs")


def test_no_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcapng"
    tcp.write_bytes(recording(segments([(0, b"GET / HTTP/1.0\r\n\r\n")])))
    assert main(["convert", str(tcp), str(usb)]) == 1
    assert "--port" in capsys.readouterr().err
    assert not usb.exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (127, "link type 127 (802.11 with radiotap):"),
        (9, "link type 9 (PPP):"),
        (220, "link type 220 (USB as usbmon has it):"),
    ],
)
def test_wrong_link_type_is_reported(kind: int, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp = tmp_path / "tcp.pcap"
    tcp.write_bytes(classic("<", 0xA1B2C3D4, 1000, link_type=kind))
    assert main(["convert", str(tcp), str(tmp_path / "usb.pcapng")]) == 1
    (output,) = capsys.readouterr().err.splitlines()
    assert f"holds only packets of {name} a recording of TCP is needed" in output


def test_packets_of_another_link_type_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp = tmp_path / "tcp.pcapng"
    other = block("<", 1, pack("<HHI", 127, 0, 0)) + block("<", 6, pack("<IIIII", 1, 0, 0, 4, 4) + b"wifi")
    tcp.write_bytes(pcapng("<", 9) + other * 3)
    assert main(["convert", str(tcp), str(tmp_path / "usb.pcapng")]) == 0
    assert "link type 127 (802.11 with radiotap) cannot be read: 3 packets" in capsys.readouterr().err


# -- formats of the output


def test_text_form(tmp_path: Path) -> None:
    usb = tmp_path / "usb.txt"
    assert main(["convert", str(GOLDEN / "audio-in/usbip.pcap"), str(usb), "--format", "text"]) == 0
    lines = usb.read_text().splitlines()
    assert lines[0].startswith("100000001 ")
    words = [line.split(" ", 2)[2] for line in lines]
    assert words[0] == "S Ci:1:002:0 s 80 06 0100 0000 0040 64 <"
    assert words[1] == "C Ci:1:002:0 0 18 = 12010002 00000040 09120100 00010102 0301"
    iso = [line for line in words if " Zi:" in line]
    assert iso[0] == "S Zi:1:002:1 -115:1:0 1 -18:0:192 192 <"
    assert iso[-1].startswith("C Zi:1:002:1 ")
    assert [line for line in words if line.startswith("S Co:1:002:0 s 00 09 0001 0000 0000 0")]
    assert all(len(line.split(" = ")[1]) <= 64 + 7 for line in words if " = " in line)


def test_unlinks_have_an_interface_of_their_own(tmp_path: Path) -> None:
    usb = tmp_path / "usb.pcapng"
    assert main(["convert", str(GOLDEN / "serial/usbip.pcap"), str(usb), "--record-unlinks"]) == 0
    items = list(read_items(usb))
    by_name = [r for r in items if isinstance(r, CapturedRecord) and r.interface.name == "unlink0"]
    assert {r.interface.link_type for r in by_name} == {101}
    commands = [r.data[40:] for r in by_name if r.data[43] == 2]
    replies = [r.data[40:] for r in by_name if r.data[43] == 4]
    assert len(commands) == len(replies) == 4
    assert {c[4:8] for c in commands} == {r[4:8] for r in replies}
    comments = [r.comments for r in items if isinstance(r, CapturedRecord) and r.comments]
    assert comments == [[f"usbip-capture: unlinked by CMD_UNLINK {int.from_bytes(c[4:8], 'big')}"] for c in commands]


@pytest.mark.parametrize("option", ["pcap", "text"])
def test_unlinks_need_pcapng(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "-", str(tmp_path / "usb"), "--format", option, "--record-unlinks"]) == 2
    assert "needs --format pcapng" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_port_is_checked(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "a", "b", "--port", port]) == 2
    assert f"--port: {port} is not a TCP port" in capsys.readouterr().err


# -- pipes


def test_a_live_stream_is_passed_on_while_it_comes() -> None:
    command = [sys.executable, "-m", "usbip_capture.cli.main", "convert", "-", "-", "--format", "text"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        half = recording(SEGMENTS[: len(SEGMENTS) // 2])
        process.stdin.write(half)
        process.stdin.flush()
        first = process.stdout.readline()  # comes though more is to follow
        process.stdin.write(RECORDING[len(half) :])
        process.stdin.close()
        rest = process.stdout.readlines()
        assert process.wait(20) == 0
        assert len([first, *rest]) == len(EXPECTED)
        assert b"1 session," in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_live_stream_is_completed_when_it_is_interrupted(number: int, tmp_path: Path) -> None:
    usb = tmp_path / "usb.pcapng"
    command = [sys.executable, "-m", "usbip_capture.cli.main", "convert", "-", str(usb)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(RECORDING[:-100])  # ends in the middle of a packet
        process.stdin.flush()
        wait_until("what came is written", lambda: usb.exists() and usb.stat().st_size > 500)
        process.send_signal(number)
        output = process.stderr.read()
        assert process.wait(20) == 0
    assert b"1 session, 1 device" in output
    assert b"cut off" not in output
    (interface,) = [item for item in read_items(usb) if isinstance(item, CapturedInterface)]
    assert interface.received == len([r for r in read_capture(usb) if r.usb]) > 10


def test_a_file_that_is_interrupted_is_converted_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcapng"
    tcp.write_bytes(recording(segments(session(rounds=200))))
    monkeypatch.setattr(progress._Progress, "portion", lambda self: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["convert", str(tcp), str(usb)]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert 10 < len([r for r in read_capture(usb) if r.usb]) < 1000
    assert "Traceback" not in capsys.readouterr().err


def test_text_can_be_read_on_a_terminal(tmp_path: Path) -> None:
    tcp = tmp_path / "tcp.pcap"
    tcp.write_bytes(RECORDING)
    ours, terminal = os.openpty()
    command = [sys.executable, "-m", "usbip_capture.cli.main", "convert", str(tcp), "-"]
    binary = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, check=False)
    assert (binary.returncode, b"standard output is a terminal" in binary.stderr) == (1, True)
    with subprocess.Popen([*command, "--format", "text"], stdout=terminal, stderr=subprocess.DEVNULL) as process:
        os.close(terminal)
        shown = b""
        try:
            while more := os.read(ours, 4096):
                shown += more
        except OSError:  # the end of a terminal
            pass
        assert process.wait(20) == 0
    os.close(ours)
    assert len(shown.splitlines()) == len(EXPECTED)


def test_a_reader_that_ends_is_a_normal_end(tmp_path: Path) -> None:
    tcp = tmp_path / "tcp.pcap"
    tcp.write_bytes(recording(segments(session(rounds=800))))
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "usbip_capture.cli.main", "convert", str(tcp), "-"]
    with subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE) as process:
        os.close(write_end)
        os.read(read_end, 100)
        os.close(read_end)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_classic_pcap_has_the_same_times(tmp_path: Path) -> None:
    tcp, usb = tmp_path / "tcp.pcap", tmp_path / "usb.pcap"
    tcp.write_bytes(RECORDING)
    assert main(["convert", str(tcp), str(usb), "--format", "pcap"]) == 0
    events = list(read_events(usb))
    assert [event(e.record) for e in events] == EXPECTED
    assert all(e.timestamp_ns >= START_NS for e in events)


@pytest.mark.parametrize(("name", "magic"), [("usb.pcap", b"\xd4\xc3\xb2\xa1"), ("usb.pcapng", b"\x0a\x0d\x0d\x0a")])
def test_the_format_is_that_of_the_name(name: str, magic: bytes, tmp_path: Path) -> None:
    assert main(["convert", str(GOLDEN / "audio-in/usbip.pcap"), str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes()[:4] in (
        magic,
        magic[::-1],
        b"\x4d\x3c\xb2\xa1" if "pcapng" not in name else magic,
    )
