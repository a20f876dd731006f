"""Commands for a running server, on a real kernel: `usbip-capture serve` and each command run in a guest."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from tests.kernel.rig import PythonGuest
from tests.kernel.rig.agent import Result
from tests.kernel.rig.python_guest import Program
from usbip_capture.cli.exits import NOT_RUNNING
from usbip_capture.device import Device
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

pytestmark = [pytest.mark.slow, pytest.mark.kernel]

PORT = 3243  # in the guest
TIMEOUT = 30.0
READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())
COMMAND = "import sys; from usbip_capture.cli.main import main; sys.exit(main(sys.argv[1:]))"


class Serving:
    """`usbip-capture serve` in a guest. serial: the adapter that it exports, behind a hub that switches power."""

    def __init__(self, guest: PythonGuest) -> None:
        self.guest = guest
        self.hub = guest.plug("power-hub")
        self.serial = guest.plug("serial", self.hub)
        self.port = guest.forward(PORT)
        listen = f"--listen=0.0.0.0:{PORT}"
        self.program: Program = guest.start(
            "-m", "usbip_capture", "serve", f"--device={self.serial}", listen, "--allow-public", "--no-announce"
        )
        self.program.wait_printed("serving at")

    def command(self, *arguments: str) -> Result:
        return self.guest.python(COMMAND, *arguments, check=False)

    def done(self, *arguments: str) -> str:
        """What a command prints that does what it should."""
        result = self.command(*arguments)
        assert result.returncode == 0, result
        return result.text

    def attach(self) -> Device:
        """When nobody has it any more: its driver is bound before it is free."""
        server = ServerAddress("127.0.0.1", self.port, TIMEOUT)
        self.guest.wait_until(lambda: self.serial in [info.busid for info in server.devices()], TIMEOUT)
        return server.import_device(Selector(busid=self.serial))

    def wait_driver(self, name: str) -> None:
        """Until this driver has the adapter."""
        path = f"/sys/bus/usb/devices/{self.serial}:1.0/driver"
        self.guest.wait_until(lambda: self.guest.run(f"readlink {path}; true").text.strip().endswith(name), TIMEOUT)

    def wait_clients(self, count: int) -> None:
        self.guest.wait_until(lambda: len(json.loads(self.done("clients", "--json"))) == count, TIMEOUT)

    def close(self) -> None:
        self.program.signal("KILL")
        self.program.wait_ended()
        self.guest.unplug(self.serial)
        self.guest.unplug(self.hub)


@pytest.fixture
def serving(lender: PythonGuest) -> Iterator[Serving]:
    made = Serving(lender)
    yield made
    made.close()


def test_commands_for_a_server_of_real_devices(serving: Serving) -> None:
    serving.wait_driver("ftdi_sio")
    assert serving.serial in serving.done("status")
    device = serving.attach()
    lost = threading.Event()
    device.watch(lambda reason: lost.set())
    assert device.run(READ, TIMEOUT).status == 0
    (client,) = json.loads(serving.done("clients", "--json"))
    assert (client["busid"], client["vid_pid"]) == (serving.serial, "0403:6001")
    assert client["bytes"] >= 18
    assert serving.done("reset", serving.serial) == f"{serving.serial} was reset\n"
    assert device.run(READ, TIMEOUT).status == 0  # the client still has it
    assert not lost.is_set()
    serving.done("kick", serving.serial)
    assert lost.wait(TIMEOUT)
    device.close()
    serving.wait_clients(0)
    serving.wait_driver("ftdi_sio")
    assert serving.done("reset", serving.serial) == f"{serving.serial} was reset\n"  # nobody has it now
    serving.wait_driver("ftdi_sio")
    serving.attach().close()
    serving.program.signal("TERM")
    serving.program.wait_ended()
    assert serving.command("status").returncode == NOT_RUNNING


def test_the_power_of_a_real_hub(serving: Serving) -> None:
    device = serving.attach()
    lost = threading.Event()
    device.watch(lambda reason: lost.set())
    serving.done("power", serving.serial, "off")
    assert lost.wait(TIMEOUT)
    device.close()
    folder = f"/sys/bus/usb/devices/{serving.serial}"
    serving.guest.wait_until(lambda: serving.guest.run(f"[ -e {folder} ]", check=False).returncode, TIMEOUT)
    assert json.loads(serving.done("status", "--json"))["devices"] == []
    serving.done("power", serving.serial, "on")
    serving.guest.wait_until(lambda: json.loads(serving.done("status", "--json"))["devices"], TIMEOUT)
    serving.attach().close()
    serving.done("power", serving.serial, "cycle")
    serving.guest.wait_until(lambda: json.loads(serving.done("status", "--json"))["devices"], TIMEOUT)
    serving.wait_driver("ftdi_sio")


def test_a_hub_without_switches_is_left_alone(serving: Serving) -> None:
    """The controller's own hub of QEMU has none."""
    refused = serving.command("power", serving.hub, "on")
    assert refused.returncode == 1
    assert "cannot switch the power of its port" in refused.text
    assert serving.command("power", serving.hub, "off").returncode == 4  # it is not exported
