"""The devices of one server, for a backend: listed anew each time, imported when used, captured, released."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from weakref import WeakValueDictionary

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.devices.serial_number import read_serial_number
from usbip_capture.errors import DeviceGone, UsbipError
from usbip_capture.host.exported import Exported
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.host.reimport import RETRY_INTERVAL, SETTLING_TIME, import_first, places, released, retry
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.descriptors import DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import ENODEV

log = logging.getLogger(__name__)


class ServerSource:
    """The devices that a server exports, all or those of `selection`.

    Each is captured in a pcapng interface of its own when there is a writer. offer: this
    program's use of them can be joined by others.
    """

    def __init__(
        self,
        server: ServerAddress,
        selection: list[Selector],
        pcap: PcapWriter | None,
        *,
        owns_pcap: bool,
        max_transfer: int,
        reconnect: float,
        offer: bool = False,
    ) -> None:
        self._offer = offer
        self._server = server
        self._selection = selection
        self._pcap = pcap
        self._owns_pcap = owns_pcap
        self._max_transfer = max_transfer
        self._reconnect = reconnect
        self._lock = threading.Lock()
        self._opened: dict[int, Device] = {}
        self._known: WeakValueDictionary[str, Exported] = WeakValueDictionary()
        self._descriptors: dict[tuple[object, ...], DeviceDescriptor] = {}
        self._channels: dict[str, UsbChannel] = {}
        self._serials: dict[tuple[object, ...], str] = {}
        self._closed = False

    def devices(self) -> Iterator[Exported]:
        """What there is now. Raises UsbipError."""
        self._check_open()
        listed = {info.busid: info for info in self._listed() if self._selected(info)}
        with self._lock:
            # Servers leave out devices in use, and those that PyUSB still holds are in use by us.
            found = {busid: exported for busid, exported in self._known.items() if self._still_ours(exported)}
            for busid, info in listed.items():
                if busid not in found:
                    found[busid] = self._exported(info)
            self._known.update(found)
        yield from found.values()

    def close(self) -> None:
        """Release what was imported, and complete the capture if it is ours. Raises CaptureError."""
        self._closed = True
        for key in list(self._opened):
            device = self._opened.pop(key, None)
            if device is not None:  # not released meanwhile, by PyUSB in another thread
                self._close(device)
        if self._owns_pcap and self._pcap is not None:
            self._pcap.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceGone(
                f"the backend of {self._server} was closed: get another one with get_backend", -ENODEV, released=True
            )

    def _selected(self, info: DeviceInfo) -> bool:
        return not self._selection or any(
            selector.matches(info) and selector.serial in ("", self._serial_number(info))
            for selector in self._selection
        )

    def _serial_number(self, info: DeviceInfo) -> str:
        """Read once, as long as it is the same device; of one that is refused, empty."""
        identity = _identity(info)
        if identity not in self._serials:
            try:
                known = self._server.known_serial_number(info.busid)
                if known is not None:
                    return known
                device = self._server.import_device(Selector(busid=info.busid))
            except UsbipError as error:
                log.debug("its serial number cannot be read: %s", error)
                return ""
            self._serials[identity] = read_serial_number(device)
            released.add(self._server, info)
            device.close()
        return self._serials[identity]

    def _still_ours(self, exported: Exported) -> bool:
        return exported.alive or (bool(self._reconnect) and exported.imported)

    def _listed(self) -> list[DeviceInfo]:
        """What the server exports, when what we released just now is there again. Raises UsbipError."""
        while True:
            listed = self._server.devices()
            if not {info.busid for info in released.of(self._server)} - {info.busid for info in listed}:
                return listed
            time.sleep(RETRY_INTERVAL)

    def _exported(self, info: DeviceInfo) -> Exported:
        """The device that PyUSB knows already, as long as it is the same one."""
        known = self._known.get(info.busid)
        if known is not None and not known.imported and _identity(known.info) == _identity(info):
            return known
        descriptor = self._descriptors.get(_identity(info))
        if descriptor is None and (raw := self._server.known_descriptor(info.busid)):
            descriptor = self._descriptors[_identity(info)] = DeviceDescriptor.parse(raw)
        return Exported(info, lambda: self._open(info), self._release, descriptor)

    def _open(self, info: DeviceInfo) -> DeviceHandle:
        self._check_open()
        patience = SETTLING_TIME if released.take(self._server, info.busid) else 0.0
        device = self._import([Selector(busid=info.busid)], patience)
        handle = DeviceHandle(
            device,
            max_transfer=self._max_transfer,
            reimport=lambda seconds: self._import_again(handle, seconds),
            reconnect=self._reconnect,
        )
        self._descriptors[_identity(info)] = handle.device_descriptor()
        return handle

    def _release(self, handle: DeviceHandle) -> None:
        self._give_up(handle.device)

    def _give_up(self, device: Device) -> None:
        self._opened.pop(id(device), None)
        self._close(device)

    def _close(self, device: Device) -> None:
        if device.alive:
            released.add(self._server, device.info)
        device.close()

    def _import_again(self, handle: DeviceHandle, patience: float) -> Device:
        """The device at the same place, whatever it is now; or elsewhere by its VID:PID. Raises DeviceError."""
        before = handle.device
        info = before.info
        released_by_us = DeviceGone(f"device {info} was released when its backend was closed", -ENODEV, released=True)
        if id(before) not in self._opened:
            raise released_by_us
        before.close()
        try:
            device = self._import(places(info), patience)
        except UsbipError as error:
            raise DeviceGone(f"device {info} was lost, and could not be imported again: {error}", -ENODEV) from error
        if self._opened.pop(id(before), None) is None:  # closed meanwhile, by another thread
            self._give_up(device)
            raise released_by_us
        return device

    def _import(self, choices: list[Selector], patience: float) -> Device:
        """Import the first of these that can be, within `patience` seconds. Raises UsbipError."""

        def pause(seconds: float) -> bool:
            time.sleep(seconds)
            return self._closed

        return self._captured(retry(lambda: import_first(self._server, choices), patience, pause=pause))

    def _captured(self, device: Device) -> Device:
        channel = None
        if self._pcap is not None:
            info = device.info
            channel = self._channels.get(info.busid)
            if channel is None:
                channel = self._channels[info.busid] = self._pcap.add_usb_interface(info, server=str(self._server))
            else:
                channel.device(info)
        if self._offer:
            from usbip_capture.offering.program import observed  # those who do not offer need none of it

            device = observed(device, str(self._server), channel)
        elif channel is not None:
            device = Tapped(device, channel)
        self._opened[id(device)] = device
        if self._closed and self._opened.pop(id(device), None) is not None:  # meanwhile, by another thread
            self._close(device)
            self._check_open()
        return device


def _identity(info: DeviceInfo) -> tuple[object, ...]:
    """What a list has of a device, without what its use changes."""
    return (
        info.busid,
        info.busnum,
        info.devnum,
        info.vid_pid,
        info.bcdDevice,
        info.bDeviceClass,
        info.bDeviceSubClass,
        info.bDeviceProtocol,
        info.bNumConfigurations,
    )
