"""Real programs, unmodified: recorded once on simulated devices, and run again on the recordings, without them."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes import simulated_programs as simulated
from tests.fakes.serial_server import serial_server
from tests.integration.test_programs import FTDI, PYVISA, USBTMC, require
from tests.programs.commands import run_use
from tests.programs.usbip_ports import environment
from usbip_capture.cli.main import main
from usbip_capture.device import Device
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import read_recordings
from usbip_capture.replayed.server import ReplayServer
from usbip_capture.server import Server
from usbip_capture.simulated.esp32.board import Esp32Board
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.exported import Adapter
from usbip_capture.usb.info import DeviceInfo

pytestmark = pytest.mark.slow
needs_esptool = pytest.mark.skipif(
    importlib.util.find_spec("esptool") is None, reason="esptool, of the dependency group `test`, is not installed"
)

FIRMWARE = bytes(range(256)) * 11
IMAGE = random.Random(21).randbytes(8192)
DOWNLOAD = ["-m", "pydfuutil", "-d", "1209:df11", "-D", "firmware.bin"]
UPLOAD = ["-m", "pydfuutil", "-d", "1209:df11", "-U", "back.bin"]
#: How fast it was is not a result; nor where.
_RATES = re.compile(r"in [\d.]+ seconds \([\d.]+ kbit/s\)|\d:\d\d:\d\d .*|usbip://\S+|[\d.]+ .B/s|\[\d+s\]")


@dataclass(slots=True)
class Program:
    """arguments: of `usbip-capture use`, after what is captured. made: the file that it writes."""

    module: str
    info: DeviceInfo
    device: Callable[[], Device]
    arguments: Sequence[str]
    made: str = ""


PROGRAMS = {
    "python-usbtmc": Program("usbtmc", simulated.INSTRUMENT, simulated.Instrument, ["usbtmc_program.py"]),
    "pyvisa-py": Program("pyvisa_py", simulated.INSTRUMENT, simulated.Instrument, ["pyvisa_program.py"]),
    "pyftdi": Program("pyftdi", simulated.FTDI, simulated.FtdiAdapter, ["ftdi_program.py"]),
    "pydfuutil down": Program("pydfuutil", simulated.DFU, simulated.DfuDevice, DOWNLOAD),
    "pydfuutil up": Program("pydfuutil", simulated.DFU, simulated.DfuDevice, UPLOAD, "back.bin"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("usbtmc", USBTMC), ("pyvisa", PYVISA), ("ftdi", FTDI)):
        (tmp_path / f"{name}_program.py").write_text(text)
    (tmp_path / "firmware.bin").write_bytes(FIRMWARE)
    (tmp_path / "image.bin").write_bytes(IMAGE)
    return tmp_path


@contextmanager
def replaying(capture: Path) -> Iterator[tuple[int, list[ReplayedDevice]]]:
    """The port of a server of its devices, and those that were opened."""
    opened: list[ReplayedDevice] = []
    with closing(ReplayServer(read_recordings(capture), speed=0, on_open=opened.append)) as server:
        yield server.listen("127.0.0.1", 0)[1], opened


def result(folder: Path, printed: str, made: str) -> tuple[list[str], bytes]:
    """What a program has printed and written, which is removed."""
    written = (folder / made).read_bytes() if made else b""
    (folder / made).unlink() if made else None
    # A dot for each time that a program has tried to connect: how often depends on the machine.
    lines = [line.strip(".") for line in _RATES.sub("", printed).replace("...", "").splitlines()]
    return [line for line in lines if line], written


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_it_did_with_the_device(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = PROGRAMS[name]
    require(program.module, name.split()[0])
    monkeypatch.setattr(simulated.DfuDevice, "firmware", FIRMWARE)
    with closing(Server()) as server:
        server.add(program.info, program.device)
        port = server.listen("127.0.0.1", 0)[1]
        printed = run_use(port, folder, "--pcap", "first.pcapng", "--", *program.arguments)
        recorded = result(folder, printed, program.made)
    with replaying(folder / "first.pcapng") as (port, opened):
        printed = run_use(port, folder, "--pcap", "again.pcapng", "--", *program.arguments)
        assert result(folder, printed, program.made) == recorded
        assert opened
        assert [str(divergence) for device in opened for divergence in device.outcome.divergences] == []
    if program.module != "pyftdi":  # which reads what the adapter sends by itself, as often as it has time for
        assert main(["compare", str(folder / "first.pcapng"), str(folder / "again.pcapng")]) == 0, capsys.readouterr()


def esptool(folder: Path, url: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "esptool", "--port", url, "--chip", "esp32", *arguments]
    surroundings = environment(folder)
    done = subprocess.run(
        command, env=surroundings, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def recorded_esptool(folder: Path, adapter: Adapter, arguments: list[str], made: str = "") -> tuple[list[str], bytes]:
    """Its result with the board, captured to first.pcapng."""
    with serial_server(adapter) as server:
        url = server.url(query=f"pcap={folder / 'first.pcapng'}")
        return result(folder, esptool(folder, url, *arguments), made)


@needs_esptool
def test_esptool_writes_as_it_did_to_the_board(folder: Path) -> None:
    arguments = ["--baud", "460800", "write-flash", "0x10000", "image.bin"]
    recorded = recorded_esptool(folder, acm(Esp32Board()), arguments)
    assert "Hash of data verified" in recorded[0]
    with replaying(folder / "first.pcapng") as (port, opened):
        assert result(folder, esptool(folder, f"usbip://127.0.0.1:{port}/1-1", *arguments), "") == recorded
        assert [str(divergence) for device in opened for divergence in device.outcome.divergences] == []


@needs_esptool
def test_esptool_reads_from_a_recording_by_its_url(folder: Path) -> None:
    arguments = ["--no-stub", "read-flash", "0x10000", "2048", "copy.bin"]
    recorded = recorded_esptool(folder, cp210x([Esp32Board()]), arguments, "copy.bin")
    assert len(recorded[1]) == 2048
    url = f"usbip://replay:{folder / 'first.pcapng'}/1-1"
    assert result(folder, esptool(folder, url, *arguments), "copy.bin") == recorded
