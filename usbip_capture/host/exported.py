"""What PyUSB holds while it knows a device: imported when something is first asked of it, then released."""

from __future__ import annotations

import threading
from collections.abc import Callable

from usbip_capture.errors import ImportRefused
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.host.opened import OpenDevice
from usbip_capture.usb.descriptors import DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo


class Exported:
    """One device of a server's list, imported by its first use.

    open_handle: imports it. release: takes what was imported; None if somebody else does that.
    descriptor: its device descriptor, if that is known from an earlier import.
    """

    def __init__(
        self,
        info: DeviceInfo,
        open_handle: Callable[[], DeviceHandle],
        release: Callable[[DeviceHandle], None] | None = None,
        descriptor: DeviceDescriptor | None = None,
    ) -> None:
        self.info = info
        self.known_descriptor = descriptor
        self._open_handle = open_handle
        self._release = release
        self._handle: DeviceHandle | None = None
        self._lock = threading.Lock()

    def handle(self) -> DeviceHandle:
        """The imported device. Raises UsbipError when the server refuses to export it."""
        with self._lock:
            if self._handle is None:
                self._handle = self._open_handle()
            return self._handle

    def open(self) -> OpenDevice:
        """A new opening, of a device that has a configuration as a local one would. Raises UsbipError."""
        handle = self.handle()
        if self._release is not None:
            handle.ensure_configured()
        return OpenDevice(handle, self)

    def descriptor(self) -> DeviceDescriptor:
        """The device descriptor; of a device that is in use elsewhere, what the server's list has of it."""
        if self.known_descriptor is None:
            try:
                self.known_descriptor = self.handle().device_descriptor()
            except ImportRefused:
                return _listed(self.info)
        return self.known_descriptor

    @property
    def imported(self) -> bool:
        """Whether the device is ours, lost or not."""
        return self._handle is not None

    @property
    def alive(self) -> bool:
        """Whether the device is imported, and not lost."""
        return self._handle is not None and self._handle.device.alive

    def close(self) -> None:
        """Release the device."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None and self._release is not None:
            self._release(handle)

    def __del__(self) -> None:
        self.close()


def _listed(info: DeviceInfo) -> DeviceDescriptor:
    return DeviceDescriptor(
        18,
        1,
        0x0200,
        info.bDeviceClass,
        info.bDeviceSubClass,
        info.bDeviceProtocol,
        64,
        info.idVendor,
        info.idProduct,
        info.bcdDevice,
        0,
        0,
        0,
        info.bNumConfigurations,
    )
