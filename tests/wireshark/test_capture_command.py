"""What `usbip-capture capture` writes, in tshark and in Wireshark's window."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.programs.commands import command_environment, run_line
from tests.programs.extcap_launcher import wireshark_environment
from tests.programs.virtual_screen import virtual_screen
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


@pytest.mark.parametrize("name", ["x.pcapng", "x.pcapng.gz"])
def test_tshark_opens_it(name: str, tmp_path: Path) -> None:
    line = f"usbip-capture capture demo -o {name} --count 40 && tshark -r {name} -T fields -e usb.src"
    done = run_line(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 40


def test_tshark_opens_each_file_of_a_ring(tmp_path: Path) -> None:
    line = "usbip-capture capture demo -o r.pcapng.gz --count 60 -b packets:25"
    assert run_line(line, tmp_path).returncode == 0
    counts = []
    for path in sorted(tmp_path.glob("r_*.pcapng.gz")):
        done = run_line(f"tshark -r {path.name} -T fields -e usb.src", tmp_path)
        assert done.returncode == 0, done.stderr
        counts.append(len(done.stdout.splitlines()))
    assert counts == [25, 25, 10]


@pytest.mark.skipif(
    not all(map(shutil.which, ("wireshark", "Xvfb", "xdotool"))), reason="wireshark, Xvfb or xdotool is missing"
)
def test_wireshark_is_started_and_outlives_us(tmp_path: Path) -> None:
    with virtual_screen() as display:
        more = {**wireshark_environment(tmp_path), "DISPLAY": display, "XDG_RUNTIME_DIR": str(tmp_path)}
        environment = {**more, **command_environment(tmp_path), "HOME": more["HOME"], "DISPLAY": display}
        program = str(tmp_path / "bin/usbip-capture")
        process = subprocess.Popen(
            [program, "capture", "demo", "--wireshark"], env=environment, stderr=subprocess.PIPE, text=True
        )
        found: list[int] = []

        def window() -> bool:
            search = ["xdotool", "search", "--name", "Capturing from -"]
            done = subprocess.run(search, env={**os.environ, "DISPLAY": display}, capture_output=True, check=False)
            return bool(done.stdout.strip())

        try:
            wait_until("Wireshark's window", window, 60)
            found = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _command(p) == "wireshark"]
            found = [pid for pid in found if _display(pid) == display]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            assert (process.returncode, "in Wireshark" in err) == (0, True), err
            assert found
            assert all(_command(Path(f"/proc/{pid}")) == "wireshark" for pid in found)
        finally:
            process.kill()
            process.wait()
            for pid in found:
                os.kill(pid, signal.SIGTERM)


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


def _display(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((v.decode().removeprefix("DISPLAY=") for v in variables if v.startswith(b"DISPLAY=")), "")
