"""A device of this machine that is not opened: what is known of it without asking it anything."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usbip_capture.devices.holders import remedy
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.binding import Libusb, is_linux
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.devices.libusb.handle import Handle
from usbip_capture.devices.libusb.raw_descriptors import configurations_of, device_descriptor
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.errors import DeviceNotFound
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

if TYPE_CHECKING:
    from usbip_capture.devices.libusb.bus import LocalBus

log = logging.getLogger(__name__)

_SPEEDS = {1: Speed.LOW, 2: Speed.FULL, 3: Speed.HIGH, 4: Speed.SUPER, 5: Speed.SUPER_PLUS}
#: Seconds after plug-in in which opening is tried again: udev sets permissions late.
OPEN_PATIENCE = 2.0
_RETRY_INTERVAL = 0.1
#: bDeviceClass
_HUB = 9
#: What opening may end with before udev is through: no rights, no file in /dev yet.
_TRANSIENT = (statuses.ERROR_ACCESS, statuses.ERROR_IO, statuses.ERROR_NO_DEVICE, statuses.ERROR_NOT_FOUND)


class LocalDevice:
    """ports: from the controller down, empty for its own hub. sysfs: its folder there, empty where there is none."""

    def __init__(self, bus: LocalBus, libusb: Libusb, raw: Any, sysfs: str) -> None:
        self._bus = bus
        self._libusb = libusb
        self._raw = raw
        self.ports: tuple[int, ...] = tuple(raw.getPortNumberList())
        busnum = int(raw.getBusNumber())
        busid = f"{busnum}-{'.'.join(map(str, self.ports))}"
        folder = Path(sysfs, busid)
        self.sysfs = str(folder) if is_linux() and folder.is_dir() else ""
        self.device_descriptor = device_descriptor(raw)
        self._configurations: list[bytes] | None = None
        self.info = self._info(busid, busnum)

    @property
    def manufacturer(self) -> str:
        """As the system has read it; else empty."""
        return self._text("manufacturer")

    @property
    def product(self) -> str:
        """As `manufacturer`."""
        return self._text("product")

    @property
    def serial(self) -> str:
        """The serial number, as `manufacturer`."""
        return self._text("serial")

    @property
    def serial_is_known(self) -> bool:
        """False if it has a serial number that the system has not read."""
        return bool(self.serial) or not DeviceDescriptor.parse(self.device_descriptor).iSerialNumber

    @property
    def all_interfaces(self) -> list[InterfaceInfo]:
        """Those of all its configurations and alternate settings."""
        return [
            InterfaceInfo(i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol)
            for configuration in self._parsed()
            for i in configuration.interfaces
        ]

    @property
    def configurations(self) -> list[bytes]:
        """The configuration descriptors with all that follows them."""
        if self._configurations is None:
            self._configurations = configurations_of(self._raw, self.sysfs)
        return self._configurations

    @property
    def descriptors(self) -> bytes:
        """The device descriptor and all configurations, as sysfs has them."""
        return self.device_descriptor + b"".join(self.configurations)

    def open(self, *, reset: bool = False) -> LibusbDevice:
        """Have it, with all interfaces that can be had. reset: when it is closed. Raises DeviceNotFound."""
        if self.info.bDeviceClass == _HUB:
            raise DeviceNotFound(f"device {self.info} is a hub: the devices behind it can be opened, each by itself")
        opened: list[LibusbDevice] = []
        left = threading.Event()

        def on_left() -> None:
            left.set()
            for device in opened:
                device.lose()

        try:
            forget = self._bus.opening((self.info.busnum, self.info.devnum), on_left)
        except DeviceNotFound as error:
            raise DeviceNotFound(f"device {self.info} cannot be opened: {error}") from error
        try:
            handle = self._opened()
            device = LibusbDevice(
                handle,
                self.info,
                self._parsed(),
                reset=reset,
                on_detaching=lambda interfaces: self._bus.on_detached(self, interfaces),
                on_attached=lambda: self._bus.on_attached(self),
                on_closed=forget,
            )
        except BaseException:
            forget()
            raise
        opened.append(device)
        if left.is_set():
            device.lose()
        return device

    def _opened(self) -> Handle:
        deadline = time.monotonic() + OPEN_PATIENCE
        while True:
            self._look_up()
            try:
                return self._libusb.open(self._raw)
            except Failure as failure:
                if failure.code not in _TRANSIENT or time.monotonic() > deadline or not self._is_new():
                    raise DeviceNotFound(self._sentence(failure)) from failure
            time.sleep(_RETRY_INTERVAL)

    def _look_up(self) -> None:
        """Find it again in the context that is used now, if that of this object is closed."""
        if not self._libusb.closed:
            return
        found = self._bus.find(self.info.busid)
        if found is None or found.info.devnum != self.info.devnum:
            raise DeviceNotFound(f"device {self.info} has been unplugged")
        self._libusb, self._raw = found._libusb, found._raw

    def _is_new(self) -> bool:
        """Whether it was plugged in just now, so that udev may still be at work."""
        since = self._bus.seconds_since_arrival((self.info.busnum, self.info.devnum))
        if since is not None:
            return since < OPEN_PATIENCE * 2
        text = self._text("power/connected_duration")  # milliseconds
        return text.isdigit() and int(text) < OPEN_PATIENCE * 2000

    def _sentence(self, failure: Failure) -> str:
        if failure.code in (statuses.ERROR_ACCESS, statuses.ERROR_NOT_SUPPORTED):
            return f"device {self.info} may not be opened by this user: {remedy(*self.info.vid_pid)}"
        if failure.code == statuses.ERROR_NO_DEVICE:
            return f"device {self.info} has been unplugged"
        return f"device {self.info} cannot be opened: {failure}"

    def _parsed(self) -> list[ConfigurationDescriptor]:
        return [parse_configuration(raw) for raw in self.configurations]

    def _text(self, name: str) -> str:
        if not self.sysfs:
            return ""
        try:
            return Path(self.sysfs, name).read_text("utf-8", "replace").rstrip("\n")
        except OSError:
            return ""

    def _info(self, busid: str, busnum: int) -> DeviceInfo:
        device = DeviceDescriptor.parse(self.device_descriptor)
        parsed = self._parsed()
        value = (
            int(self._text("bConfigurationValue") or 0)
            if self.sysfs
            else (parsed[0].bConfigurationValue if parsed else 0)
        )
        active = next((c for c in parsed if c.bConfigurationValue == value), None)
        seen: dict[int, InterfaceInfo] = {}
        for i in active.interfaces if active is not None else ():
            seen.setdefault(
                i.bInterfaceNumber, InterfaceInfo(i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol)
            )
        return DeviceInfo(
            busid,
            busnum,
            int(self._raw.getDeviceAddress()),
            _SPEEDS.get(self._raw.getDeviceSpeed(), Speed.UNKNOWN),
            device.idVendor,
            device.idProduct,
            device.bcdDevice,
            device.bDeviceClass,
            device.bDeviceSubClass,
            device.bDeviceProtocol,
            value,
            device.bNumConfigurations,
            len(seen),
            self.sysfs or f"/sys/bus/usb/devices/{busid}",
            tuple(seen.values()),
        )
