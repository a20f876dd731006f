"""Recorded sessions: converted from TCP, they are what usbmon saw of the same URBs, on both sides."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.oracles.usbmon_comparison import compare
from usbip_capture.cli.main import main

GOLDEN = Path(__file__).parents[2] / "golden"
#: Found, never listed.
SESSIONS = sorted(path.parent for path in GOLDEN.glob("*/usbip.pcap"))
TROUBLE = "_ws.malformed || (usb.urb_type == 'C' && !usb.request_in)"


def converted(session: Path, folder: Path, *options: str, name: str = "usb.pcapng") -> Path:
    out = folder / name
    assert main(["convert", str(session / "usbip.pcap"), str(out), *options]) == 0
    return out


def test_there_are_sessions() -> None:
    assert len(SESSIONS) >= 8


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.name)
def test_equals_the_clients_usbmon(session: Path, tmp_path: Path) -> None:
    report = compare(converted(session, tmp_path), session / "client-usbmon.pcap")
    assert report.differences == []
    assert report.fields > 30 * report.urbs
    assert report.urbs >= 15


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.name)
def test_equals_the_servers_usbmon(session: Path, tmp_path: Path) -> None:
    report = compare(converted(session, tmp_path), session / "server-usbmon.pcap", on_server=True)
    assert report.differences == []
    assert report.fields > 30 * report.urbs


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.name)
def test_classic_pcap_holds_the_same(session: Path, tmp_path: Path) -> None:
    out = converted(session, tmp_path, "--format", "pcap", name="usb.pcap")
    assert out.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"
    assert compare(out, session / "client-usbmon.pcap").differences == []


@pytest.mark.wireshark
@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.name)
def test_tshark_finds_nothing_malformed_or_unmatched(session: Path, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    out = converted(session, tmp_path, "--record-unlinks")
    unanswered = "usb.urb_type == 'S' && !usb.response_in"
    for display_filter in (TROUBLE, unanswered):
        command = ["tshark", "-2", "-r", str(out), "-d", "tcp.port==3240,usbip", "-Y", display_filter]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
