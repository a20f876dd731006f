"""A machine with the demo device on its USB, libusb being simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.simulated_usb1 import SimulatedUsb1, USBContext, USBDevice
from usbip_capture.demo.device import DemoDevice
from usbip_capture.device import Device
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.device import LibusbDevice


class LocalUsb:
    """module: stands in for usb1. raw: the device at port 1, `simulated` what is behind it."""

    def __init__(
        self, simulated: Device | None = None, *, has_hotplug: bool = True, sysfs: str = "/there/is/no/sysfs"
    ) -> None:
        self.module = SimulatedUsb1(has_hotplug=has_hotplug)
        self.simulated = simulated or DemoDevice()
        self.raw: USBDevice = self.module.plug(self.simulated)
        self.libusb = Libusb(self.module)
        self.bus = LocalBus(self.libusb, sysfs)
        self._opened: list[LibusbDevice] = []

    @property
    def context(self) -> USBContext:
        """Its only context."""
        return self.module.contexts[0]

    def open(self, *, reset: bool = False) -> LibusbDevice:
        """The device at port 1."""
        device = self.bus.devices()[0].open(reset=reset)
        self._opened.append(device)
        return device

    def close(self) -> None:
        """All that was opened."""
        for device in self._opened:
            device.close()
        self.bus.close()
        self.libusb.close()
        self.module.close()


@contextmanager
def local_usb(
    prepare: Callable[[USBDevice], None] = lambda raw: None,
    simulated: Device | None = None,
    *,
    has_hotplug: bool = True,
    sysfs: str = "/there/is/no/sysfs",
) -> Iterator[LocalUsb]:
    """One that is closed at the end; `prepare` is called before the device is opened."""
    usb = LocalUsb(simulated, has_hotplug=has_hotplug, sysfs=sysfs)
    try:
        prepare(usb.raw)
        yield usb
    finally:
        usb.close()


def in_sysfs(folder: Path, device: Device, **texts: str) -> Path:
    """The folder that Linux would have for a device. texts: its other files."""
    info = device.info
    path = folder / info.busid
    path.mkdir(parents=True)
    texts = {"busnum": str(info.busnum), "devnum": str(info.devnum), "bConfigurationValue": "1", **texts}
    for name, text in texts.items():
        target = path / name.replace("__", "/")
        target.parent.mkdir(exist_ok=True)
        target.write_text(f"{text}\n", "utf-8")
    return path
