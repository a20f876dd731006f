"""esptool, unmodified, flashes a simulated ESP32 through our ports, near and far."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.serial_server import SerialServer, serial_server
from tests.programs.usbip_ports import environment
from usbip_capture.simulated.esp32.board import Esp32Board
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.exported import Adapter

pytest.importorskip("esptool", reason="esptool, of the dependency group `test`, is not installed")

pytestmark = pytest.mark.slow

CHIPS = ("CDC-ACM", "CP210x")
# Those between the ends add no other case, only more of the same: eight runs of esptool, each.
LATENCIES = (0.0, *(pytest.param(seconds, marks=pytest.mark.long) for seconds in (0.003, 0.006)), 0.012)
MAC = "24:0a:c4:00:01:02"


def board_adapter(chip: str, board: Esp32Board, latency: float) -> Adapter:
    return acm(board, latency=latency) if chip == "CDC-ACM" else cp210x([board], latency=latency)


def esptool(server: SerialServer, folder: Path, *arguments: str) -> str:
    """Its output; fails when it does."""
    command = [sys.executable, "-m", "esptool", "--port", server.url(), "--chip", "esp32", *arguments]
    done = subprocess.run(
        command, env=environment(folder), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def for_all(job: Callable[[str, list[str]], None]) -> None:
    """Run `job` for each chip, with and without the stub, all at once: they mostly wait."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(job, chip, options) for chip in CHIPS for options in (["--no-stub"], [])]:
            done.result()


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_chip_identifies_itself(latency: float, tmp_path: Path) -> None:
    def job(chip: str, options: list[str]) -> None:
        folder = tmp_path / f"{chip}{len(options)}"
        folder.mkdir()
        with serial_server(board_adapter(chip, Esp32Board(), latency)) as server:
            output = esptool(server, folder, *options, "chip-id")
            assert MAC in output
            assert ("Stub flasher running" in output) == (not options)

    for_all(job)


@pytest.mark.parametrize("latency", LATENCIES)
def test_flash_is_written_and_read_back(latency: float, tmp_path: Path) -> None:
    def job(chip: str, options: list[str]) -> None:
        folder = tmp_path / f"{chip}{len(options)}"
        folder.mkdir()
        image = random.Random(chip).randbytes(4096 if options else 20_000)
        (folder / "image.bin").write_bytes(image)
        speed = ["--baud", "460800"]
        with serial_server(board_adapter(chip, Esp32Board(), latency)) as server:
            output = esptool(server, folder, *options, *speed, "write-flash", "0x10000", "image.bin")
            assert "Hash of data verified" in output
            esptool(server, folder, *options, *speed, "read-flash", "0x10000", str(len(image)), "copy.bin")
        assert (folder / "copy.bin").read_bytes() == image

    for_all(job)
