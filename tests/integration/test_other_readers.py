"""Captures read by a program that others have written for usbmon's (usbmon-tools): it finds what the kernel's have."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from usbip_capture import PcapWriter, get_backend
from usbip_capture.cli.main import main

pytestmark = pytest.mark.skipif(importlib.util.find_spec("usbmon") is None, reason="usbmon-tools is not installed")

GOLDEN = Path(__file__).parents[1] / "golden"
SESSIONS = sorted(path.parent for path in GOLDEN.glob("*/usbip.pcap"))
ROOT_HUB = "001"


def read(capture: Path, *options: str) -> list[str]:
    """Each record as a line of text: tag, time, event, pipe, status or setup, length, data."""
    program = [sys.executable, "-m", "usbmon.tools.pcapng2text", "--address-prefix", "", *options, str(capture)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def comparable(lines: list[str]) -> Iterator[str]:
    """Without tag, time and device; of unlinked URBs either status, of isochronous IN no data: it may have gaps."""
    for line in lines:
        _, _, event, pipe, rest = line.split(" ", 4)
        kind, _, device, endpoint = pipe.split(":")
        if device == ROOT_HUB:
            continue
        if kind == "Zi":
            rest = rest.partition(" = ")[0]
        yield f"{event} {kind} {endpoint} {'-104' + rest[2:] if rest.startswith('-2 ') else rest}"


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.name)
def test_it_reads_of_ours_what_it_reads_of_the_kernels(session: Path, tmp_path: Path) -> None:
    if shutil.which("editcap") is None:
        pytest.skip("editcap is not installed")
    ours, kernels = tmp_path / "ours.pcapng", tmp_path / "kernels.pcapng"
    assert main(["convert", str(session / "usbip.pcap"), str(ours)]) == 0
    subprocess.run(["editcap", "-F", "pcapng", str(session / "client-usbmon.pcap"), str(kernels)], check=True)
    found, known = Counter(comparable(read(ours))), Counter(comparable(read(kernels)))
    assert found.total() >= 30
    assert not found - known
    # Only what has no PDU: SET_ADDRESS, and what libpcap asks when it starts.
    assert {line.split(" ")[1] for line in known - found} <= {"Ci", "Co"}


def test_it_reads_live_captures(tmp_path: Path) -> None:
    import usb.core

    capture = tmp_path / "live.pcapng"
    with PcapWriter(capture) as pcap, get_backend("demo", pcap=pcap) as backend:
        device = usb.core.find(backend=backend, idVendor=0x1209, idProduct=0x0001)
        assert device is not None
        descriptor = bytes(device.ctrl_transfer(0x80, 0x06, 0x0100, 0, 18))
    words = [line.split(" ") for line in read(capture, "--no-retag-urbs")]
    asked = [w for w in words if w[2] == "S" and w[4:10] == ["s", "80", "06", "0100", "0000", "0012"]]
    answered = [w for w in words if w[2] == "C" and w[0] == asked[-1][0]]
    assert "".join(answered[0][7:]) == descriptor.hex()
