"""esptool, unmodified, flashes a simulated ESP32 through our ports, near and far."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serial_server import SerialServer, serial_server
from tests.usbip_ports import environment
from usbip_capture.devices.esp32.board import Esp32Board
from usbip_capture.devices.serial.acm import acm
from usbip_capture.devices.serial.cp210x import cp210x
from usbip_capture.devices.serial.exported import Adapter

pytest.importorskip("esptool", reason="esptool, of the dependency group `test`, is not installed")

CHIPS = ("CDC-ACM", "CP210x")
LATENCIES = (0.0, 0.003, 0.006, 0.012)
MAC = "24:0a:c4:00:01:02"
STUBS = pytest.mark.parametrize("options", [["--no-stub"], []], ids=["ROM", "stub"])


def board_adapter(chip: str, board: Esp32Board, latency: float) -> Adapter:
    return acm(board, latency=latency) if chip == "CDC-ACM" else cp210x([board], latency=latency)


def esptool(server: SerialServer, folder: Path, *arguments: str) -> str:
    """What it says; fails when it does."""
    command = [sys.executable, "-m", "esptool", "--port", server.url(), "--chip", "esp32", *arguments]
    done = subprocess.run(
        command, env=environment(folder), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@STUBS
@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_chip_tells_what_it_is(chip: str, latency: float, options: list[str], tmp_path: Path) -> None:
    with serial_server(board_adapter(chip, Esp32Board(), latency)) as server:
        said = esptool(server, tmp_path, *options, "chip-id")
    assert MAC in said
    assert ("Stub flasher running" in said) == (not options)


@STUBS
@pytest.mark.parametrize("chip", CHIPS)
def test_a_chip_tells_its_address(chip: str, options: list[str], tmp_path: Path) -> None:
    with serial_server(board_adapter(chip, Esp32Board(), 0.003)) as server:
        assert MAC in esptool(server, tmp_path, *options, "read-mac")


@STUBS
@pytest.mark.parametrize(("chip", "latency"), [("CDC-ACM", 0.003), ("CP210x", 0.006), ("CDC-ACM", 0.012)])
def test_flash_is_written_and_read_back(chip: str, latency: float, options: list[str], tmp_path: Path) -> None:
    image = random.Random(8).randbytes(20_000 if not options else 4096)
    (tmp_path / "image.bin").write_bytes(image)
    with serial_server(board_adapter(chip, Esp32Board(), latency)) as server:
        speed = ["--baud", "460800"]
        said = esptool(server, tmp_path, *options, *speed, "write-flash", "0x10000", "image.bin")
        assert "Hash of data verified" in said
        esptool(server, tmp_path, *options, *speed, "read-flash", "0x10000", str(len(image)), "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == image
