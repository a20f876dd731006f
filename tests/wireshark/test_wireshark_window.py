"""Wireshark itself, in a window on a virtual screen: start, capture, stop, and read back the file that it saved."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import wireshark_environment
from tests.programs.virtual_screen import virtual_screen
from tests.waiting import wait_until

pytestmark = pytest.mark.wireshark


@pytest.fixture
def display() -> Iterator[str]:
    """A virtual screen of its own."""
    for program in ("wireshark", "Xvfb", "xdotool", "tshark"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with virtual_screen() as name:
        yield name


def fields(capture: Path, *names: str) -> list[list[str]]:
    """Fields of each packet, by tshark."""
    command = ["tshark", "-r", str(capture), "-T", "fields", *(part for name in names for part in ("-e", name))]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def test_capture_in_the_window(display: str, tmp_path: Path) -> None:
    environment = {**wireshark_environment(tmp_path), "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
    environment["XDG_RUNTIME_DIR"] = str(tmp_path)
    saved = tmp_path / "saved.pcapng"
    preferences = ["extcap.usbip_remote.host:demo", "gui.update.enabled:FALSE"]
    options = [part for preference in preferences for part in ("-o", preference)]
    command = ["wireshark", "-k", "-i", "usbip-remote", *options, "-w", str(saved)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as window:
        try:
            wait_until("Wireshark writes packets", lambda: saved.exists() and saved.stat().st_size > 8000, 60)
            titles = ["xdotool", "search", "--onlyvisible", "--name", "USB/IP remote"]
            found = wait_until("the capture's window", lambda: _out(titles, environment).split(), 20)
            stop = ["xdotool", "windowfocus", "--sync", found[0], "key", "--window", found[0], "ctrl+e"]
            subprocess.run(stop, env=environment, check=True)
            wait_until("the extcap ends", lambda: not _children(window.pid, "usbip-extcap"), 20)
            assert window.poll() is None, "Wireshark ended together with the capture"
        finally:
            window.send_signal(signal.SIGKILL)
    packets = fields(saved, "frame.interface_name", "usb.idVendor", "usbhid.data", "frame.comment")
    assert {row[0] for row in packets} == {"usbip0"}
    assert any(row[1] == "0x1209" for row in packets)
    assert any(row[2] for row in packets), "no keyboard report was decoded"
    assert any("descriptors" in row[3] for row in packets)
    statistics = subprocess.run(["capinfos", "-M", str(saved)], capture_output=True, text=True, check=False).stdout
    assert "usbip0" in statistics


def _out(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _children(parent: int, name: str) -> list[int]:
    """Processes below `parent` whose command line names `name`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if name in line and above == parent:
                found.append(int(entry.name))
    return found
