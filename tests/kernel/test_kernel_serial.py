"""The drivers of serial adapters on devices of a real Linux kernel's USB/IP server: nothing is lost or reordered."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.conftest import Plug
from tests.kernel.rig import Guest
from tests.serial_host import SerialHost
from tests.waiting import wait_until
from usbip_capture.devices.remote import RemoteDevice
from usbip_capture.errors import UsbipError
from usbip_capture.hosts import Selector, Server
from usbip_capture.uart.cdc_acm import CdcAcm
from usbip_capture.uart.ftdi import Ftdi
from usbip_capture.uart.settings import LineSettings

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.fixture
def host() -> Iterator[Callable[[int, str], SerialHost]]:
    """Opens the port of a device of a server on this machine."""
    hosts: list[SerialHost] = []

    def opened(port: int, busid: str) -> SerialHost:
        server, selector = Server("127.0.0.1", port, 20.0), Selector(busid)

        def take() -> RemoteDevice | None:
            try:
                return server.import_device(selector)
            except UsbipError:      # the gadget that the test before had is not free at once
                return None

        device = wait_until(f"{busid} is handed over", take)
        assert device is not None
        hosts.append(SerialHost(device, settings=LineSettings(921600)))
        return hosts[-1]

    yield opened
    for each in hosts:
        each.device.close()


@pytest.fixture(scope="session")
def gadget(start_guest: Callable[[], Guest]) -> Guest:
    """A guest that offers an ACM gadget, and echoes what comes to it."""
    guest = start_guest()
    guest.gadget(["acm.0"])
    # Each client that leaves hangs the line up.
    echo = "stty -F /dev/ttyGS0 raw -echo; cat /dev/ttyGS0 >/dev/ttyGS0; usleep 50000"
    guest.run(f"(while :; do {echo}; done) >/dev/null 2>&1 &")
    return guest


@pytest.mark.parametrize("chunk", [61, 512, 4096, 65536])
def test_ftdi_adapter(
    guest: Guest, plug: Plug, host: Callable[[int, str], SerialHost], chunk: int
) -> None:
    busid = plug("serial")
    opened = host(guest.usbip_port, busid)
    assert isinstance(opened.driver, Ftdi)
    data = random.Random(chunk).randbytes(MIB // 16 if chunk < 100 else MIB)
    assert opened.echo(data, chunk) == data


@pytest.mark.parametrize("chunk", [61, 512, 4096, 65536])
def test_acm_gadget(gadget: Guest, host: Callable[[int, str], SerialHost], chunk: int) -> None:
    opened = host(gadget.gadget_port, "usbip-vudc.0")
    assert isinstance(opened.driver, CdcAcm)
    data = random.Random(chunk).randbytes(MIB // 16 if chunk < 100 else MIB)
    assert opened.echo(data, chunk) == data
