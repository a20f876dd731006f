"""Programs of others through the relay: clients of three kinds, and a server that is not ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import usb.core

from tests.fakes.simulated_programs import MODEM, Modem
from tests.integration.test_other_servers import virtual
from tests.oracles.pcapng_reader import read_capture
from tests.programs.other_clients import PYUSB, run_program
from tests.waiting import wait_until
from usbip_capture import PcapWriter, get_backend, server
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoServer
from usbip_capture.records.usbmon import COMPLETE, SUBMIT
from usbip_capture.relay.relay import Relay
from usbip_capture.servers.address import ServerAddress

__all__ = ["virtual"]  # a fixture

SERIAL = """
import sys
from serial_usbipclient import HardwareID, USBIPClient
modem = HardwareID(0x1209, 3)
client = USBIPClient(("127.0.0.1", int(sys.argv[1])), command_timeout=10.0)
client.attach([modem])
(connection,) = client.get_connection(modem)
client.send(connection, b"once around\\r\\n")
print(connection.response_data(timeout=10.0, size=13).decode().strip())
client.shutdown()
"""


class Between:
    """A relay to a server, and its capture."""

    def __init__(self, server: ServerAddress, path: Path) -> None:
        self._relay = Relay(server, port=0)
        self._writer = PcapWriter(path)
        self._tap = self._relay.capture(self._writer)
        self._path = path
        self.port = self._relay.port

    def close(self) -> None:
        self._relay.end_capture(self._tap)
        self._writer.close()
        self._relay.close()

    def check(self, least: int) -> None:
        """It has captured whole URBs: each has come back, when the client has gone."""
        wait_until("the client is gone", lambda: not self._relay.busy)
        self.close()
        kinds = [record.usb.type for record in read_capture(self._path) if record.usb is not None]
        assert kinds.count(SUBMIT) == kinds.count(COMPLETE) >= least


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Between]:
    with (
        closing(DemoServer()) as demo,
        closing(Between(ServerAddress(*demo.listen("127.0.0.1", 0)), tmp_path / "out.pcapng")) as found,
    ):
        yield found


def test_pyusb_usbip_backend(between: Between, tmp_path: Path) -> None:
    assert run_program("usbip_backend", PYUSB, tmp_path, between.port, BULK_OUT, BULK_IN) == "Demo device once around\n"
    between.check(5)


def test_serial_usbipclient(tmp_path: Path) -> None:
    with closing(server.Server()) as modems:
        modems.add(MODEM, Modem)
        address = ServerAddress(*modems.listen("127.0.0.1", 0))
        with closing(Between(address, tmp_path / "out.pcapng")) as between:
            assert run_program("serial_usbipclient", SERIAL, tmp_path, between.port) == "once around\n"
            between.check(10)


def test_usbip_list(between: Between) -> None:
    program = shutil.which("usbip") or shutil.which("usbip", path="/usr/sbin")
    if program is None:
        pytest.skip("usbip is not installed")
    command = [program, "--tcp-port", str(between.port), "list", "-r", "127.0.0.1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "(1209:0001)" in shown


def test_usbip_of_pypi_as_server(virtual: int, tmp_path: Path) -> None:
    with closing(Between(ServerAddress("127.0.0.1", virtual), tmp_path / "out.pcapng")) as between:
        with get_backend("127.0.0.1", between.port) as backend:
            device = usb.core.find(backend=backend)
            assert isinstance(device, usb.core.Device)
            assert device.product == "Echo"
            with pytest.raises(usb.core.USBTimeoutError):
                device.read(0x81, 64, 50)
            data = bytes(range(256)) * 40
            assert device.write(0x01, data, 20_000) == len(data)
            got = b""
            while len(got) < len(data):
                got += bytes(device.read(0x81, len(data), 20_000))
            assert got == data
        between.check(5)
