"""The page about replay stays true: its commands run and print what it shows, its tests pass."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.storing_device import STORE, Step, StoringDevice, captured
from tests.programs.commands import ROOT, command_environment, run_line
from usbip_capture.cli import commands
from usbip_capture.demo.device import CDC_OUT, INFO
from usbip_capture.server import Server

PAGE = (ROOT / "docs/replay.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
#: Another program's, which test_replay_programs.py runs.
LINES = [line[2:] for block in CONSOLE for line in block.splitlines() if line.startswith("$ usbip-capture ")]
STRINGS: list[Step] = [("control", 0x80, 6, 0x0300 | number, 0x0409, 255) for number in (1, 2, 3)]
SESSION: list[Step] = [
    *STRINGS,
    ("control", 0x21, 0x22, 3, 0, b""),
    ("control", 0x40, STORE, 0, 0, b"value"),
    ("control", 0xC0, STORE, 0, 0, 8),
    ("loop", CDC_OUT, b"hello\n", 512),
]
PROGRAM = "import usb.core\nassert usb.core.find(idVendor=0x1209).product == 'Demo device'\n"


def recorded(path: Path) -> bytes:
    source = StoringDevice()
    _, raw = captured(source, SESSION, source)
    path.write_bytes(raw)
    return raw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With what the page names: sessions of two days, of which the second stalls a request and echoes otherwise."""
    raw = recorded(tmp_path / "session.pcapng")
    (tmp_path / "yesterday.pcapng").write_bytes(raw)
    setup = raw.index(bytes.fromhex("2122030000000000"))
    stalled = raw.index(b"C\x02\x00", setup) + 20
    echo = raw.rindex(b"hello\n")
    changed = raw[:stalled] + (-32).to_bytes(4, "little", signed=True) + raw[stalled + 4 : echo] + b"hella\n"
    (tmp_path / "today.pcapng").write_bytes(changed + raw[echo + 6 :])
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def shape(text: str) -> list[str]:
    """Numbers of packets and transfers are those of another session."""
    return [re.sub(r"\d+ transfers|packets \d+ / \d+", "N", line) for line in text.splitlines()]


def block(start: str) -> str:
    """What the page shows after a command."""
    (found,) = [text for text in CONSOLE if text.startswith(start)]
    return str(found).split("\n", 1)[1]


@pytest.mark.parametrize("line", LINES)
def test_commands_are_understood(line: str) -> None:
    name, *words = line.split()[1:]
    assert commands.parse(name, words).run


def test_replay_prints_what_is_shown(folder: Path) -> None:
    command = ["usbip-capture", "replay", "session.pcapng", "--listen", "127.0.0.1:0"]
    environment = command_environment(folder)
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            shown = process.stdout.readline() + process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    shown = re.sub(r":\d{2,5},", ",", shown).replace("usbip --tcp-port", "usbip")
    assert shape(re.sub(r"usbip \d+ attach", "usbip attach", shown)) == shape(block("$ usbip-capture replay"))
    assert process.returncode == 0


@pytest.mark.parametrize("line", [line for line in LINES if "replay:" in line])
def test_commands_run_with_it_as_their_host(line: str, folder: Path) -> None:
    done = run_line(line, folder)
    assert done.returncode == 0, done.stderr
    if "-o " in line:
        assert (folder / line.split("-o ")[1]).stat().st_size > 1000


def test_compare_prints_what_is_shown(folder: Path) -> None:
    done = run_line("usbip-capture compare yesterday.pcapng today.pcapng", folder)
    assert done.returncode == 1, done.stderr
    assert shape(done.stdout) == shape(block("$ usbip-capture compare"))
    done = run_line("usbip-capture compare yesterday.pcapng session.pcapng --tolerance 60", folder)
    assert done.returncode == 0
    assert "equal: " in done.stdout


def test_its_program_runs(folder: Path) -> None:
    (program,) = [text for text in PYTHON if "get_backend" in text]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + "assert dev.product == 'Demo device'\n"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_its_tests_pass_recorded_and_replayed(tmp_path: Path) -> None:
    pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
    (tests,) = [text for text in PYTHON if "usb_recording" in text]
    (tmp_path / "test_page.py").write_text(tests)
    server = Server()
    server.add(INFO, StoringDevice)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "usbip_capture.pytest_plugin"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    try:
        _, port = server.listen("127.0.0.1", 0)
        for more in ([f"--usb-record=127.0.0.1:{port}"], []):
            done = subprocess.run(
                [*command, *more],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "2 passed" in done.stdout
            assert {path.name for path in (tmp_path / "recordings").iterdir()} == {"product.pcapng", "echo.pcapng"}
    finally:
        server.close()
