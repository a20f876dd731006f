"""The commands for people: their exit status, Ctrl-C at any time, and outputs that are closed, full or not read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT
from tests.waiting import wait_until

EXTCAP = "from usbip_capture.extcap.main import main as start"
CAPTURE = "from usbip_capture.cli import start"


def command(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; {program}; sys.exit(start())", *arguments]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "USBIP_", "DISPLAY"))}
    return {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "USBIP_CAPTURE_DISCOVERY": "off"}


STATUS = [
    (EXTCAP, "", 0), (EXTCAP, "--version", 0), (EXTCAP, "--help", 0), (EXTCAP, "--capture --help", 0),
    (EXTCAP, "--nonsense", 2), (EXTCAP, "nonsense", 2), (EXTCAP, "--host demo", 2), (EXTCAP, "--profile nonsense", 2),
    (EXTCAP, "--install --uninstall", 2), (EXTCAP, "--wireshark a b c", 2), (EXTCAP, "--wireshark a:99999", 2),
    (CAPTURE, "--version", 0), (CAPTURE, "nonsense", 2), (CAPTURE, "demo --listen 127.0.0.1:x", 2),
    (CAPTURE, "stats --filter x no-such-file", 2), (CAPTURE, "stats no-such-file", 1),
]  # fmt: skip


@pytest.mark.parametrize(("program", "arguments", "status"), STATUS)
def test_exit_status(program: str, arguments: str, status: int, environment: dict[str, str]) -> None:
    line = command(program, *arguments.split())
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) == bool(status)
    assert bool(done.stdout) == (not status)


ANSWERS = [
    (EXTCAP, "--help"), (EXTCAP, "--version"), (EXTCAP, "--install"), (EXTCAP, "--profile"), (EXTCAP, "--doctor"),
    (EXTCAP, "--extcap-interfaces"), (CAPTURE, f"stats {ROOT}/tests/unit/report/golden/serial/capture.pcap"),
]  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("output", [">&-", "<&- >&- 2>&-", ">/dev/full"])
@pytest.mark.parametrize(("program", "arguments"), ANSWERS)
def test_outputs_that_are_closed_or_full(
    program: str, arguments: str, output: str, environment: dict[str, str]
) -> None:
    shell = ["sh", "-c", f'"$@" {output}', "sh", *command(program, *arguments.split())]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1 or output != ">/dev/full"
    if output == ">/dev/full" and arguments != "--extcap-interfaces":
        assert done.stderr.endswith(": the output cannot be written: No space left on device\n")


def held(module: str, tmp_path: Path) -> str:
    """Statements after which importing `module` waits, and reports it by a file.

    It waits in small steps: a signal that comes just before a sleep is noticed after it only.
    """
    marker = tmp_path / "importing"
    return (
        "import sys, time\n"
        "class Held:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        f"            open({str(marker)!r}, 'w').close()\n"
        "            for _ in range(1200):\n"
        "                time.sleep(0.05)\n"
        "sys.meta_path.insert(0, Held())\n"
    )


@pytest.mark.parametrize(
    ("program", "arguments", "module"),
    [
        (CAPTURE, "stats x", "usbip_capture.cli.main"),
        (CAPTURE, "stats x", "usbip_capture.report.measure"),
        (EXTCAP, "--install", "argparse"),
        (EXTCAP, "--install", "usbip_capture.installation.placement"),
    ],
)
def test_ctrl_c_while_it_starts(
    program: str, arguments: str, module: str, environment: dict[str, str], tmp_path: Path
) -> None:
    code = f"{held(module, tmp_path)}{program}\nsys.exit(start())"
    line = [sys.executable, "-c", code, *arguments.split()]
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until("it imports", (tmp_path / "importing").exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, err) == (b"", b"")
    assert process.returncode in (130, -signal.SIGINT)
