"""pyserial's own test suite, unmodified from its source distribution, on looped-back ports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.fakes.serial_server import serial_server
from tests.oracles.suites_of_others import own_suite
from tests.programs.usbip_ports import environment
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback

pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")

pytestmark = pytest.mark.slow

RUNNER = Path(__file__).with_name("run_pyserial_suite.py")
# Test -> why not.
EXCLUDED = {
    "test_cancel.TestCancelWrite.test_cancel_once": "1 KiB is to take 34 s at 300 baud: simulated wires take no time"
}
CHIPS = {"CDC-ACM": {**EXCLUDED, "test.Test0_DataWires.test1_RTS": "CDC-ACM has no CTS"}, "FTDI": EXCLUDED}
PARTS = 3
Runs: TypeAlias = "dict[str, list[Future[subprocess.CompletedProcess[str]]]]"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `test` folder of the source distribution of the pyserial that is installed."""
    return own_suite("pyserial", "test", "serial", tmp_path_factory.mktemp("pyserial"))


def run(chip: str, part: int, suite: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    adapter = acm(Loopback()) if chip == "CDC-ACM" else ftdi([Loopback()])
    with serial_server(adapter) as server:
        command = [sys.executable, str(RUNNER), str(suite), server.url(), f"{part}/{PARTS}", *CHIPS[chip]]
        return subprocess.run(
            command, env=environment(folder), capture_output=True, text=True, timeout=200, check=False
        )


@pytest.fixture(scope="module")
def runs(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All at once: they mostly wait."""
    with ThreadPoolExecutor(len(CHIPS) * PARTS) as pool:
        yield {
            chip: [pool.submit(run, chip, part, suite, tmp_path_factory.mktemp("run")) for part in range(PARTS)]
            for chip in CHIPS
        }


@pytest.mark.parametrize("chip", CHIPS)
def test_pyserial_s_own_tests_pass(chip: str, runs: Runs) -> None:
    tests = 0
    for part in runs[chip]:
        done = part.result()
        assert done.returncode == 0, done.stderr
        ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
        assert ran
        tests += int(ran[1])
    assert tests == 61 - len(CHIPS[chip])
