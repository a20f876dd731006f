"""A probe session: import, read, listen, give back; and again when the device has been away."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import usb.core
import usb.util

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.devices.remote import RemoteDevice
from usbip_capture.errors import ServerLost, UsbipError
from usbip_capture.hosts import Selector, Server
from usbip_capture.net import DEFAULT_PORT
from usbip_capture.probe.enumeration import Enumeration
from usbip_capture.probe.listen import Listener
from usbip_capture.pyusb_backend.backend import UsbipBackend
from usbip_capture.pyusb_backend.exported import ImportedSource
from usbip_capture.pyusb_backend.handle import DeviceHandle
from usbip_capture.tap import Tapped
from usbip_capture.usb.info import DeviceInfo

log = logging.getLogger(__name__)

#: Comment on each packet of the enumeration, so that `frame.comment` tells it from the rest.
ENUMERATION_LABEL = "usbip-capture: descriptors read at the start"
#: Seconds between two looks for a device that is away.
RETRY_INTERVAL = 0.5
#: Seconds that the device has to let go of URBs when the capture stops.
RELEASE_TIMEOUT = 0.2


@dataclass(slots=True, frozen=True)
class ProbeSettings:
    """What to capture, and how. `device` is a busid, VID:PID or empty for the only one."""

    host: str
    port: int = DEFAULT_PORT
    device: str = ""
    descriptors: bool = True
    listen_in: bool = True
    reconnect: bool = True
    timeout: float = 5.0


class ProbeSession:
    """Captures one device of one server into `writer` until stopped."""

    def __init__(self, settings: ProbeSettings, writer: PcapWriter) -> None:
        self._settings = settings
        self._writer = writer
        self._server = Server(settings.host, settings.port, settings.timeout)
        self._wake = threading.Event()
        self._stopping = False
        self._enumerating: Device | None = None
        self._channel: UsbChannel | None = None

    def run(self) -> None:
        """Capture until `stop`, or until the device is gone and is not to be waited for.

        Raises UsbipError, its message one sentence, when there is nothing (more) to capture.
        """
        selector = Selector.parse(self._settings.device)
        device = self._server.import_device(selector)
        info = device.info
        while True:
            self._capture(device)
            if self._stopping:
                return
            log.info("%s", device.lost)
            if not self._settings.reconnect:
                raise ServerLost(f"the capture ended: {device.lost}")
            found = self._wait_for(selector, info)
            if found is None:
                return
            device = found

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self._stopping = True
        self._wake.set()
        enumerating = self._enumerating
        if enumerating is not None:
            enumerating.close()

    def _capture(self, device: RemoteDevice) -> None:
        """One stay of the device: until it is gone or the session is stopped."""
        try:
            device.watch(lambda reason: self._wake.set())
            channel = self._open_channel(device.info)
            tapped = Tapped(device, channel)
            self._enumerating = tapped
            try:
                handle = self._enumerate(tapped, channel)
            finally:
                self._enumerating = None
            if handle is not None:
                self._listen(device, tapped, handle, channel)
        except usb.core.USBError as error:
            if not self._stopping and device.lost is None:
                raise ServerLost(f"device {device.info} of {self._server} does not answer: {error}") from error
        finally:
            lost = device.lost
            device.close()
            if lost is not None and self._channel is not None and not self._stopping:
                self._channel.gone(lost)

    def _open_channel(self, info: DeviceInfo) -> UsbChannel:
        if self._channel is None:
            self._channel = self._writer.add_usb_interface(info, server=str(self._server), product=None)
        else:
            self._channel.device(info)
            self._channel.comment(f"usbip-capture: device {info} is back, imported again")
        return self._channel

    def _enumerate(self, device: Device, channel: UsbChannel) -> DeviceHandle | None:
        """Read the device as its host would. None when the session is being stopped."""
        source = ImportedSource(device)
        handle = source.handle()
        channel.label = ENUMERATION_LABEL
        try:
            enumeration = Enumeration(usb.core.find(backend=UsbipBackend(source)), handle, channel.product)
            if self._settings.descriptors:
                enumeration.describe()
            enumeration.configure()
            if self._settings.descriptors:
                enumeration.describe_hid()
        finally:
            channel.label = None
        return None if self._stopping else handle

    def _listen(self, device: RemoteDevice, tapped: Device, handle: DeviceHandle, channel: UsbChannel) -> None:
        def note(text: str) -> None:
            channel.comment(f"usbip-capture: {text}")

        endpoints = list(handle.endpoints) if self._settings.listen_in else []
        listener = Listener(tapped, endpoints, note)
        listener.start()
        while not self._stopping and device.lost is None:
            self._wake.wait()
            self._wake.clear()
        listener.stop(RELEASE_TIMEOUT)

    def _wait_for(self, selector: Selector, before: DeviceInfo) -> RemoteDevice | None:
        """Look for the device until it can be imported again; None when stopped meanwhile.

        Without a selector it is the one that was there before: at its place, or elsewhere by its VID:PID.
        """
        choices = [selector] if str(selector) else [Selector(busid=before.busid), Selector(vid_pid=_vid_pid(before))]
        while not self._stopping:
            for choice in choices:
                try:
                    return self._server.import_device(choice)
                except UsbipError as error:
                    log.debug("still away: %s", error)
            self._wake.wait(RETRY_INTERVAL)
        return None


def _vid_pid(info: DeviceInfo) -> tuple[int, int]:
    return info.idVendor, info.idProduct
