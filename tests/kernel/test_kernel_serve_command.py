"""`usbip-capture serve` in a guest, on real libusb and kernel drivers: these are bound again also after a kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.lending import PORT, TIMEOUT, Lending
from tests.kernel.rig import PythonGuest
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

pytestmark = pytest.mark.kernel

DRIVER = "ftdi_sio"
RESTORE = "from usbip_capture.cli.main import main; import sys; sys.exit(main(['serve', '--restore']))"


class Serving(Lending):
    """The command in place of the tests' own server."""

    def start(self, *arguments: str) -> None:
        listen = ("--listen", f"0.0.0.0:{PORT}", "--allow-public", "--no-announce")
        self.program = self.guest.start("-m", "usbip_capture", "serve", "--all", *listen, *arguments)
        self.program.wait_printed("serving at")

    def attach(self, busid: str) -> RemoteDevice:
        """When nobody has it any more: its driver is bound before it is free."""
        self.wait_available(busid)
        device = import_device(SocketTransport(connect("127.0.0.1", self.port, TIMEOUT), "the guest"), busid, TIMEOUT)
        assert device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), TIMEOUT).status == 0
        return device


@pytest.fixture
def serving(lender: PythonGuest) -> Iterator[Serving]:
    made = Serving(lender)
    yield made
    made.close()


def test_the_driver_is_bound_again_when_the_client_leaves_and_at_the_end(serving: Serving) -> None:
    busid = serving.lend("serial", driver=DRIVER)
    device = serving.attach(busid)
    assert DRIVER not in serving.drivers(busid).values()
    device.close()
    serving.wait_driver(busid, DRIVER)
    device = serving.attach(busid)
    assert "all devices are released" in serving.stop()
    assert DRIVER in serving.drivers(busid).values()
    device.close()


def test_after_a_kill_the_driver_is_bound_by_restore_and_by_the_next_start(serving: Serving) -> None:
    busid = serving.lend("serial", driver=DRIVER)
    for restart in (False, True):
        device = serving.attach(busid)
        serving.program.signal("KILL")
        serving.program.wait_ended()
        device.close()
        assert serving.drivers(busid) == {}
        if restart:
            serving.start()
        else:
            assert f"{busid}:1.0 has its driver {DRIVER} again" in serving.guest.python(RESTORE).text
            assert "no driver is left unbound" in serving.guest.python(RESTORE).text
        serving.wait_driver(busid, DRIVER)
        if not restart:
            serving.start()
            serving.wait_available(busid)
    serving.wait_available(busid)
    serving.attach(busid).close()


def test_what_is_plugged_in_is_reported_and_unplugged_in_a_session(serving: Serving) -> None:
    busid = serving.lend("serial", driver=DRIVER)
    device = serving.attach(busid)
    lost: list[str] = []
    device.watch(lost.append)
    serving.unplug(busid)
    serving.guest.wait_until(lambda: lost, TIMEOUT)
    device.close()
    printed = serving.stop()
    assert f"{busid} (0403:6001)" in printed
    assert "is exported" in printed
    assert "is unplugged" in printed
    assert "Traceback" not in printed
