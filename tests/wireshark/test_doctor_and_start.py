"""The doctor about the real tshark, and Wireshark started by `--wireshark` on a virtual screen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT, wireshark_environment
from tests.programs.virtual_screen import virtual_screen
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**wireshark_environment(tmp_path), "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}


def extcap(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from usbip_capture.extcap.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_doctor_finds_this_machine_well(environment: dict[str, str]) -> None:
    done = extcap({**environment, "USBIP_CAPTURE_SERVERS": "demo"}, "--doctor")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "lists usbip-remote" in done.stdout
    assert "server demo exports 1 device" in done.stdout


def test_doctor_through_the_launcher(environment: dict[str, str], tmp_path: Path) -> None:
    launcher = tmp_path / ".config/wireshark/extcap/usbip-extcap"
    done = subprocess.run([launcher, "--doctor"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_doctor_before_the_installation(environment: dict[str, str], tmp_path: Path) -> None:
    for path in tmp_path.rglob("usbip-extcap"):
        path.unlink()
    done = extcap(environment, "--doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "--install'" in done.stdout
    assert extcap(environment, "--install").returncode == 0
    assert extcap(environment, "--doctor").returncode == 0


@pytest.fixture
def display() -> Iterator[str]:
    for program in ("wireshark", "Xvfb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with virtual_screen() as name:
        yield name


def test_wireshark_starts_capturing(display: str, environment: dict[str, str]) -> None:
    done = extcap({**environment, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}, "--wireshark", "demo", "1-1")
    assert done.returncode == 0, done.stderr
    (process,) = map(int, re.findall(r"process (\d+)", done.stdout))
    try:
        command = wait_until("our extcap captures", lambda: capturing(process), 60)
    finally:
        os.killpg(process, signal.SIGKILL)
    assert command[command.index("--host") + 1] == "demo"
    assert command[command.index("--device") + 1] == "1-1"


def test_wireshark_without_its_display(environment: dict[str, str]) -> None:
    if shutil.which("wireshark") is None:
        pytest.skip("wireshark is not installed")
    done = extcap({**environment, "DISPLAY": ":32100", "QT_QPA_PLATFORM": "xcb"}, "--wireshark", "demo")
    assert done.returncode == 1
    assert "display" in done.stderr
    assert done.stderr.count("\n") == 1


def capturing(session: int) -> list[str]:
    """The command line of our capture in this session; empty if there is none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0")
                if "--capture" in command and os.getsid(int(entry.name)) == session:
                    return command
            except OSError:  # it ended meanwhile
                continue
    return []
