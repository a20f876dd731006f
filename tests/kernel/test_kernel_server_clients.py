"""Other clients of our server in the guest: Debian's tools, ours, pyserial, PyUSB, and those of others."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.kernel.lending import Lending
from tests.kernel.rig import FakeDevice
from tests.kernel.rig.fakedev import BULK_IN, BULK_OUT
from tests.programs.commands import run_line
from tests.programs.other_clients import PYUSB, run_program

serial = pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
from usbip_capture.urlhandler import registration  # noqa: E402  after the skip

registration.register(serial)
pytestmark = pytest.mark.kernel

SERIAL = """
import sys
from serial_usbipclient import HardwareID, USBIPClient
from serial_usbipclient.usbip_client import USBIP_Connection
USBIP_Connection.readall.__defaults__ = (10.0,)  # its own time-out is too short for an emulated machine under load
modem = HardwareID(0x1D6B, 0x0104)
client = USBIPClient(("127.0.0.1", int(sys.argv[1])), command_timeout=10.0)
client.attach([modem])
(connection,) = client.get_connection(modem)
client.send(connection, b"once around\\n")
print(connection.response_data(timeout=10.0, size=12).decode().strip())
client.shutdown()
"""


@pytest.fixture
def fake(lending: Lending, tmp_path: Path) -> Iterator[str]:
    """A loopback device that is lent; its busid."""
    with closing(FakeDevice(tmp_path / "fake.sock")) as device:
        busid = lending.lend("redir", socket=device.path)
        yield busid
        lending.unplug(busid)


def test_lists(lending: Lending, fake: str, tmp_path: Path) -> None:
    adapter = lending.lend("serial")
    command = ["/usr/sbin/usbip", "--tcp-port", str(lending.port), "list", "-r", "127.0.0.1"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ours = run_line(f"usbip-capture list 127.0.0.1:{lending.port}", tmp_path).stdout
    for busid, ids in ((fake, "1209:0001"), (adapter, "0403:6001")):
        for listed in (theirs, ours):
            assert any(busid in line and ids in line for line in listed.splitlines()), listed


def test_our_probe_and_selftest(lending: Lending, tmp_path: Path) -> None:
    busid = lending.lend("serial", driver="ftdi_sio")
    where = f"127.0.0.1:{lending.port} {busid}"
    probed = run_line(f"usbip-capture probe {where}", tmp_path)
    assert probed.returncode == 0, probed.stdout + probed.stderr
    lending.wait_available(busid)
    tested = run_line(f"usbip-capture selftest {where}", tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_pyusb_usbip_backend(lending: Lending, fake: str, tmp_path: Path) -> None:
    printed = run_program("usbip_backend", PYUSB, tmp_path, lending.port, BULK_OUT, BULK_IN)
    assert printed == "fake device once around\n"


def test_serial_usbipclient(lending: Lending, tmp_path: Path) -> None:
    guest = lending.guest
    guest.gadget(["acm.0"], "dummy_udc.0")
    busid = f"{guest.bus('dummy')}-1"
    try:
        guest.run("stty -F /dev/ttyGS0 raw -echo; (cat /dev/ttyGS0 >/dev/ttyGS0) >/dev/null 2>&1 </dev/null & :")
        lending.wait_available(busid)
        assert run_program("serial_usbipclient", SERIAL, tmp_path, lending.port) == "once around\n"
        lending.wait_available(busid)
    finally:
        guest.run("killall cat; :", check=False)
        guest.remove_gadget()


def test_pyserial(lending: Lending) -> None:
    busid = lending.lend("serial", driver="ftdi_sio")
    data = random.Random(16).randbytes(60_000)
    with serial.serial_for_url(f"usbip://127.0.0.1:{lending.port}/{busid}", 921600, timeout=20) as port:
        for at in range(0, len(data), 6000):
            port.write(data[at : at + 6000])
            assert port.read(6000) == data[at : at + 6000]
    lending.wait_available(busid)
    lending.wait_driver(busid, "ftdi_sio")
