"""A bus of this machine whose devices a test plugs in and out: each is the demo device, under another identity."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.waiting import wait_until
from usbip_capture import LocalServer
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.device import Device, Transfer
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo
from usbip_capture.usb.setup import PortReset, classify
from usbip_capture.usb.urb import Completion, TransferType


class OpenedDevice(DemoDevice):
    """resets: as the device of libusb has it. was_reset: whether it was when it was closed.

    port_resets: how often a request has reset it, which the device of libusb takes too.
    """

    def __init__(self, info: DeviceInfo, *, reset: bool) -> None:
        super().__init__()
        self.info = info
        self.resets = reset
        self.was_reset = False
        self.port_resets = 0
        self.released = threading.Event()

    def submit(self, transfer: Transfer) -> None:
        urb = transfer.urb
        if urb.transfer_type == TransferType.CONTROL and isinstance(classify(urb.setup), PortReset):
            self.port_resets += 1
            transfer.finish(Completion(0))
        else:
            super().submit(transfer)

    def close(self) -> None:
        self.was_reset = self.was_reset or self.resets
        super().close()
        self.released.set()


class FakePlugged:
    """opened: each device that was opened, the newest last. refuses: what opening says, if it fails."""

    def __init__(self, info: DeviceInfo, serial: str, sysfs: str) -> None:
        self.info = info
        self.serial = serial
        self.serial_is_known = True
        self.all_interfaces = info.interfaces
        self.sysfs = sysfs
        self.manufacturer, self.product = "usbip_capture", "Demo device"
        self.opened: list[OpenedDevice] = []
        self.refuses = ""

    def open(self, *, reset: bool = False) -> Device:
        if self.refuses:
            raise DeviceNotFound(self.refuses)
        self.opened.append(OpenedDevice(self.info, reset=reset))
        return self.opened[-1]


class FakeBus:
    """Told of what is plugged in, it tells those who watch."""

    def __init__(self) -> None:
        self.plugged: dict[str, FakePlugged] = {}
        self.on_detached: Callable[[Any, list[int]], None] = lambda plugged, interfaces: None
        self.on_attached: Callable[[Any], None] = lambda plugged: None
        self.watchers: list[Callable[[], None]] = []
        self._addresses = 2

    def devices(self) -> list[FakePlugged]:
        return list(self.plugged.values())

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(on_change)
        return lambda: self.watchers.remove(on_change) if on_change in self.watchers else None

    def plug(
        self,
        busid: str = "1-1",
        vid_pid: tuple[int, int] = (0x303A, 0x4001),
        *,
        serial: str = "",
        sysfs: str = "",
        classes: tuple[int, ...] = (3, 8),
        bDeviceClass: int = 0,
    ) -> FakePlugged:
        """A device at this port, perhaps in place of another one."""
        self._addresses += 1
        info = replace(
            INFO,
            busid=busid,
            busnum=int(busid.partition("-")[0]),
            devnum=self._addresses,
            idVendor=vid_pid[0],
            idProduct=vid_pid[1],
            bDeviceClass=bDeviceClass,
            bNumInterfaces=len(classes),
            interfaces=tuple(InterfaceInfo(code, 0, 0) for code in classes),
        )
        before = self.plugged.get(busid)
        made = self.plugged[busid] = FakePlugged(info, serial, sysfs)
        for device in before.opened if before is not None else ():
            device.unplug()
        self.changed()
        return made

    def unplug(self, busid: str) -> None:
        """The device at this port is gone; who has it open notices, as libusb's devices do."""
        plugged = self.plugged.pop(busid)
        for device in plugged.opened:
            device.unplug()
        self.changed()

    def changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()


def bus_with(serial: str) -> FakeBus:
    """One with a device at 1-1 of this serial number."""
    made = FakeBus()
    made.plug("1-1", serial=serial)
    return made


def import_once(server: LocalServer) -> None:
    """As a client does that leaves at once; it has left then."""
    ServerAddress(*server.addresses[0], 30.0).import_device(Selector("1-1")).close()
    wait_until("it has left", lambda: not server.clients, 30)


class SwitchableBus(FakeBus):
    """switched: what was done to which port. refusal: what its hubs say, if they cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.switched: list[tuple[str, bool]] = []
        self.refusal = ""

    def switch_power(self, busid: str, on: bool) -> None:
        if self.refusal:
            raise UsbipError(self.refusal)
        self.switched.append((busid, on))
        if on:
            self.plug(busid)
        else:
            self.unplug(busid)
