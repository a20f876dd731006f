"""This machine as a test wants it: simulated devices at the edge of libusb, and what /sys and /proc say of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.builders.sysfs_tree import Machine
from tests.fakes.simulated_usb1 import SimulatedUsb1, USBDevice
from usbip_capture.demo.device import DESCRIPTORS, INFO, DemoDevice
from usbip_capture.devices import holders, uses
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus

_DRIVERS = ("cdc_acm", "cdc_acm", "usbhid", "")
IN_PLACE_OF_USB1 = Path(__file__).parent / "in_place_of_usb1"


class LocalMachine:
    """`usb1` is the simulated module, `files` the folders of the system."""

    def __init__(self, folder: Path) -> None:
        self.usb1 = SimulatedUsb1()
        self.files = Machine(folder)

    def plug_demo(self, *ports: int, devnum: int = 7, drivers: tuple[str, ...] = _DRIVERS, **texts: str) -> USBDevice:
        """The demo device at these ports of bus 1, configured, with these drivers of its interfaces.

        texts: what the system has read, in place of the device's manufacturer, product or serial.
        """
        busid = f"1-{'.'.join(map(str, ports))}"
        strings = dict(zip(("manufacturer", "product", "serial"), DESCRIPTORS.strings[:3], strict=True))
        raw = DESCRIPTORS.device + b"".join(DESCRIPTORS.configurations)
        sysfs = self.files.device(busid, devnum=devnum, bConfigurationValue="1", **{**strings, **texts})
        Path(sysfs, "descriptors").write_bytes(raw)
        attached = self.usb1.plug(DemoDevice(replace(INFO, busid=busid, busnum=1, devnum=devnum)), ports)
        for number, driver in enumerate(drivers):
            self.files.interface(sysfs, number, driver)
            if driver == "usbfs":
                attached.holders[number] = "another program"
            elif driver:
                attached.bind(number, driver)
        return attached


@contextmanager
def local_machine(folder: Path) -> Iterator[LocalMachine]:
    """Within the block, this machine is the simulated one for this process."""
    made = LocalMachine(folder)
    roots = made.files.roots
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "usb1", made.usb1)
        patch.setattr(Libusb, "_shared", None)
        for function in (holders.interface_holders, holders.obstacle):
            patch.setattr(holders, function.__name__, partial(function, roots=roots))
        patch.setattr(uses, "uses", partial(uses.uses, roots=roots))
        libusb = Libusb.shared()
        bus = LocalBus(libusb, str(folder / "sys/bus/usb/devices"))
        patch.setattr(LocalBus, "_shared", bus)
        try:
            yield made
        finally:
            bus.close()
            libusb.close()
            made.usb1.close()
