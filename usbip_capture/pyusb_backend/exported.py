"""What PyUSB holds while it knows a device: imported when its descriptors are first asked for, then given back."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

from usb.core import USBError

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.errors import ImportRefused, UsbipError
from usbip_capture.hosts import Selector, Server
from usbip_capture.pyusb_backend.errors import unreachable
from usbip_capture.pyusb_backend.handle import DeviceHandle
from usbip_capture.tap import Tapped
from usbip_capture.usb.info import DeviceInfo

_DEVICE_FIELDS = (
    "bLength",
    "bDescriptorType",
    "bcdUSB",
    "bDeviceClass",
    "bDeviceSubClass",
    "bDeviceProtocol",
    "bMaxPacketSize0",
    "idVendor",
    "idProduct",
    "bcdDevice",
    "iManufacturer",
    "iProduct",
    "iSerialNumber",
    "bNumConfigurations",
)


class Exported:
    """One device of the server's list. One that is `borrowed` is closed by who lent it."""

    def __init__(self, info: DeviceInfo, open_device: Callable[[], Device], *, borrowed: bool = False) -> None:
        self.info = info
        self._open_device = open_device
        self._borrowed = borrowed
        self._handle: DeviceHandle | None = None
        self._lock = threading.Lock()

    def handle(self) -> DeviceHandle:
        """The imported device. Raises USBError when the server does not hand it over."""
        with self._lock:
            if self._handle is None:
                try:
                    self._handle = DeviceHandle(self._open_device())
                except UsbipError as error:
                    raise unreachable(error, busy=isinstance(error, ImportRefused)) from error
            return self._handle

    def descriptor_fields(self) -> dict[str, int]:
        """The device descriptor; of a device that is in use elsewhere, what the server's list says of it."""
        try:
            descriptor = self.handle().device_descriptor()
        except USBError as error:
            if not isinstance(error.__cause__, ImportRefused):
                raise
            return _listed_fields(self.info)
        return {name: getattr(descriptor, name) for name in _DEVICE_FIELDS}

    @property
    def alive(self) -> bool:
        """Whether the device is imported, and not lost."""
        return self._handle is not None and self._handle.device.alive

    def close(self) -> None:
        """Give the device back to the server."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None and not self._borrowed:
            handle.device.close()

    def __del__(self) -> None:
        self.close()


class Source(ABC):
    """Where a backend's devices come from."""

    @abstractmethod
    def devices(self) -> Iterator[Exported]:
        """What there is now. Raises UsbipError."""

    @abstractmethod
    def close(self) -> None:
        """Give back what was imported."""


class ServerSource(Source):
    """All devices that a server exports, each captured in a pcapng interface of its own when there is a writer."""

    def __init__(self, server: Server, pcap: PcapWriter | None, owns_pcap: bool) -> None:
        self._server = server
        self._pcap = pcap
        self._owns_pcap = owns_pcap
        self._opened: dict[int, Device] = {}
        self._known: WeakValueDictionary[str, Exported] = WeakValueDictionary()

    def devices(self) -> Iterator[Exported]:
        # Servers leave out devices in use, and those that PyUSB still holds are in use by us.
        found = {busid: exported for busid, exported in self._known.items() if exported.alive}
        for info in self._server.devices():
            if info.busid not in found:
                found[info.busid] = Exported(info, lambda info=info: self._open(info))  # type: ignore[misc]
        self._known.update(found)
        yield from found.values()

    def close(self) -> None:
        while self._opened:
            self._opened.popitem()[1].close()
        if self._owns_pcap and self._pcap is not None:
            self._pcap.close()

    def _open(self, info: DeviceInfo) -> Device:
        device: Device = self._server.import_device(Selector(busid=info.busid))
        if self._pcap is not None:
            device = Tapped(device, self._pcap.add_usb_interface(device.info, server=str(self._server)))
        self._opened[id(device)] = device
        return device


class ImportedSource(Source):
    """One device that is imported already; who imported it gives it back."""

    def __init__(self, device: Device) -> None:
        self._exported = Exported(device.info, lambda: device, borrowed=True)

    def handle(self) -> DeviceHandle:
        """The host's side of the device."""
        return self._exported.handle()

    def devices(self) -> Iterator[Exported]:
        yield self._exported

    def close(self) -> None:
        """Nothing was imported here."""


def _listed_fields(info: DeviceInfo) -> dict[str, int]:
    fields = dict.fromkeys(_DEVICE_FIELDS, 0)
    fields.update(bLength=18, bDescriptorType=1, bcdUSB=0x0200, bMaxPacketSize0=64)
    for name in _DEVICE_FIELDS:
        fields[name] = getattr(info, name, fields[name])
    return fields
