"""A conversion that fails leaves what was there; what it reports of files that it cannot read."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.conversion import convert
from tests.builders.tcp_recording import START_NS, packet, pcap, recording, segments
from tests.builders.usbip_sessions import session
from tests.oracles.pcapng_reader import read_capture
from usbip_capture.cli.main import main
from usbip_capture.convert.converter import Converter

SESSION = recording(segments(session(rounds=4)))
LARGE = recording(segments(session(rounds=30, size=20_000)))
NO_SESSION = recording(segments([(0, b"GET / HTTP/1.0\r\n\r\n")]))
PRECIOUS = b"precious" * 100
FORMATS = ["pcapng", "pcap", "text"]
PROGRAM = [sys.executable, "-m", "usbip_capture.cli.main", "convert"]
#: Bytes that a file may have, in place of a disk that is full.
ROOM = 300_000


def room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


@pytest.fixture
def tcp(tmp_path: Path) -> Path:
    path = tmp_path / "tcp.pcap"
    path.write_bytes(SESSION)
    return path


@pytest.fixture
def usb(tmp_path: Path) -> Path:
    """A file that exists."""
    path = tmp_path / "usb.out"
    path.write_bytes(PRECIOUS)
    return path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "raw",
    [NO_SESSION, NO_SESSION[:-10], pcap([(START_NS, bytes(60))], "raw"), SESSION[:24] + b"\xff" * 40],
    ids=["no session", "no session, cut off", "nothing of TCP", "damaged"],
)
@pytest.mark.parametrize("exists", [True, False])
def test_without_a_session_nothing_is_written(raw: bytes, form: str, exists: bool, tcp: Path, usb: Path) -> None:
    tcp.write_bytes(raw)
    if not exists:
        usb.unlink()
    assert main(["convert", str(tcp), str(usb), "--format", form]) == 1
    assert sorted(p.name for p in tcp.parent.iterdir()) == (["tcp.pcap", "usb.out"] if exists else ["tcp.pcap"])
    assert not exists or usb.read_bytes() == PRECIOUS


def test_a_port_without_a_session_writes_nothing(tcp: Path, usb: Path) -> None:
    assert main(["convert", str(tcp), str(usb), "--port", "80"]) == 1
    assert usb.read_bytes() == PRECIOUS


@pytest.mark.parametrize("form", FORMATS)
def test_what_exists_is_replaced_by_a_whole_capture(form: str, tcp: Path, usb: Path, tmp_path: Path) -> None:
    assert main(["convert", str(tcp), str(usb), "--format", form]) == 0
    assert main(["convert", str(tcp), str(tmp_path / "new"), "--format", form]) == 0
    assert usb.read_bytes() == (tmp_path / "new").read_bytes() != PRECIOUS
    assert len(list(tmp_path.iterdir())) == 3


def test_what_was_readable_of_a_recording_replaces_it_too(tcp: Path, usb: Path) -> None:
    tcp.write_bytes(SESSION[:-100])
    assert main(["convert", str(tcp), str(usb)]) == 1
    assert len([r for r in read_capture(usb) if r.usb]) > 10


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_costs_nothing_that_was_there(form: str, tcp: Path, usb: Path) -> None:
    tcp.write_bytes(recording(segments(session(rounds=3000, size=64))))
    command = [*PROGRAM, str(tcp), str(usb), "--format", form]
    done = subprocess.run(command, stderr=subprocess.PIPE, preexec_fn=room, timeout=60, check=False)
    assert done.returncode == 1
    assert b"cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert usb.read_bytes() == PRECIOUS
    assert sorted(p.name for p in tcp.parent.iterdir()) == ["tcp.pcap", "usb.out"]


def test_a_full_disk_leaves_what_found_room_in_a_new_file(tcp: Path) -> None:
    tcp.write_bytes(LARGE)
    usb = tcp.parent / "new"
    command = [*PROGRAM, str(tcp), str(usb)]
    done = subprocess.run(command, stderr=subprocess.PIPE, preexec_fn=room, timeout=60, check=False)
    assert done.returncode == 1
    assert len([r for r in read_capture(usb) if r.usb]) > 5


def test_the_input_is_never_the_output(tcp: Path) -> None:
    """Neither by its name nor through standard input and output."""
    with tcp.open("rb") as read, tcp.open("ab") as append:
        for command, out in (([*PROGRAM, "-", str(tcp)], subprocess.PIPE), ([*PROGRAM, str(tcp), "-"], append)):
            done = subprocess.run(command, stdin=read, stdout=out, stderr=subprocess.PIPE, timeout=60, check=False)
            assert done.returncode == 1
            assert b"is the input: name another file" in done.stderr
    assert tcp.read_bytes() == SESSION


def test_a_terminal_is_not_waited_for() -> None:
    ours, terminal = os.openpty()
    done = subprocess.run([*PROGRAM, "-", "-"], stdin=terminal, capture_output=True, timeout=60, check=False)
    os.close(ours)
    os.close(terminal)
    assert done.returncode == 1
    assert b"standard input is a terminal" in done.stderr


def test_too_little_memory_is_one_sentence(
    tcp: Path, usb: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Converter) -> None:
        raise MemoryError

    monkeypatch.setattr(Converter, "run", run)
    assert main(["convert", str(tcp), str(usb)]) == 1
    assert "more memory to convert than there is" in capsys.readouterr().err
    assert usb.read_bytes() == PRECIOUS


# -- what is reported of a file


@pytest.mark.parametrize(
    ("begin", "program"),
    [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\x03\x04", "zip"),
    ],
)
def test_packed_files_are_named_alike(
    begin: bytes, program: str, tcp: Path, usb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tcp.write_bytes(begin + bytes(100))
    assert main(["convert", str(tcp), str(usb)]) == 1
    output = capsys.readouterr().err
    assert f"{tcp} is packed with {program}: unpack it first (gzip is read as it is)" in output
    assert main(["stats", str(tcp)]) == 1
    assert capsys.readouterr().err == output


def test_what_tcp_may_hide_in_is_counted_when_there_is_no_session() -> None:
    frames = [packet(s) for s in segments(session())]
    ends = (
        (b"\x88\x64", "Ethernet type 0x8864 (PPPoE)"),
        (b"\x81\x00\0\x05\x88\x47", "Ethernet type 0x8847 (MPLS)"),
        (b"\x12\x34", "Ethernet type 0x1234"),
        (b"\x00\x20", "802.3 with LLC"),
    )
    hidden = [(START_NS, frame[:12] + end + frame[14:]) for end, _ in ends for frame in frames]
    got = convert(pcap(hidden))
    assert got.converter.remarks == [f"{name} is not looked into: {len(frames)} packets" for _, name in ends]
    tunnelled = [(START_NS, frame[:23] + b"\x2f" + frame[24:]) for frame in frames]
    got = convert(pcap(tunnelled))
    assert got.converter.remarks == [f"IP tunnel (GRE) is not looked into: {len(frames)} packets"]
    assert convert(pcap(hidden + [(START_NS, frame) for frame in frames])).converter.remarks == []


def test_names_that_move_a_cursor_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tcp = tmp_path / "a\x1b[2Jb.pcap"
    tcp.write_bytes(NO_SESSION)
    assert main(["convert", str(tcp), str(tmp_path / "usb")]) == 1
    output = capsys.readouterr().err
    assert "\x1b" not in output
    assert "a\\x1b[2Jb.pcap" in output
