"""Real programs that use PyUSB, unmodified, on simulated devices behind a real socket."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import simulated_programs as simulated
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import run_use
from usbip_capture.server import Server

ROOT = Path(__file__).parents[2]
USBTMC = """\
import usbtmc
instrument = usbtmc.Instrument(0x1209, 0x0010)
print(instrument.ask("*IDN?"))
print(instrument.ask("X" * 3000 + "?")[:3], instrument.ask("CURVE?"))
instrument.write("OUTPUT ON")
instrument.clear()
instrument.close()
"""
PYVISA = """\
import pyvisa
manager = pyvisa.ResourceManager("@py")
names = manager.list_resources("USB?*")
instrument = manager.open_resource(names[0])
print(names[0], instrument.query("*IDN?"))
instrument.close()
manager.close()
"""
FTDI = """\
from pyftdi.ftdi import Ftdi
from pyftdi.serialext import serial_for_url
port = serial_for_url("ftdi://ftdi:ft-x/1", baudrate=115200, timeout=10)
port.write(bytes(range(256)) * 4)
print(port.read(1024) == bytes(range(256)) * 4, [str(d.sn) for d, _ in Ftdi.list_devices()])
port.close()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    opened.add(simulated.DFU, simulated.DfuDevice)
    yield opened
    opened.close()


def use(server: Server, folder: Path, *arguments: str) -> str:
    """What a program prints; it must end well."""
    return run_use(server.listen("127.0.0.1", 0)[1], folder, *arguments)


def require(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{package} is not installed")


def instrument(server: Server) -> list[simulated.Instrument]:
    """Export an instrument; those that were opened."""
    opened: list[simulated.Instrument] = []

    def open_one() -> simulated.Instrument:
        opened.append(simulated.Instrument())
        return opened[-1]

    server.add(simulated.INSTRUMENT, open_one)
    return opened


def test_python_usbtmc(server: Server, tmp_path: Path) -> None:
    require("usbtmc", "python-usbtmc")
    opened = instrument(server)
    (tmp_path / "measure.py").write_text(USBTMC)
    printed = use(server, tmp_path, "--pcap", "tmc.pcapng", "--", "measure.py")
    assert printed.splitlines() == [simulated.IDENTITY.decode().strip(), "XXX CURVE?"]
    assert opened[-1].commands[-1] == b"OUTPUT ON"
    assert any(b"*IDN?" in packet.data for packet in read_capture(tmp_path / "tmc.pcapng"))


def test_pyvisa_py(server: Server, tmp_path: Path) -> None:
    require("pyvisa_py", "pyvisa-py")
    instrument(server)
    (tmp_path / "measure.py").write_text(PYVISA)
    printed = use(server, tmp_path, "--", "measure.py")
    assert "::TMC0001::" in printed
    assert simulated.IDENTITY.decode().strip() in printed


def test_pyftdi(server: Server, tmp_path: Path) -> None:
    require("pyftdi", "pyftdi")
    server.add(simulated.FTDI, simulated.FtdiAdapter)
    (tmp_path / "terminal.py").write_text(FTDI)
    assert use(server, tmp_path, "--", "terminal.py") == "True ['FT000001']\n"


def test_dfu(server: Server, tmp_path: Path) -> None:
    require("pydfuutil", "pydfuutil")
    program = shutil.which("pydfuutil")
    command = [program] if program else ["-m", "pydfuutil"]
    firmware = bytes(range(256)) * 11
    (tmp_path / "firmware.bin").write_bytes(firmware)
    use(server, tmp_path, "--device", "1209:df11", "--", *command, "-d", "1209:df11", "-D", "firmware.bin")
    assert simulated.DfuDevice.firmware == firmware
    use(server, tmp_path, "--", *command, "-d", "1209:df11", "-U", "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == firmware
