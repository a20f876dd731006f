"""How a simulated device answers standard requests, from nothing but its descriptors.

Ref: USB 2.0 specification, 9.4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from usbip_capture.uart.ports import Port, find_ports
from usbip_capture.usb import setup as requests
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.strings import pack_string

LANGID = 0x0409
_SELF_POWERED = 0x40


@dataclass(frozen=True)
class Descriptors:
    """Everything GET_DESCRIPTOR can ask for. `strings` begins with string 1; `reports` is by interface.

    qualifier: of a device that has another speed too; empty if there is none.
    """

    device: bytes
    configurations: Sequence[bytes]
    strings: Sequence[str] = ()
    bos: bytes = b""
    reports: Mapping[int, bytes] = field(default_factory=dict)
    qualifier: bytes = b""

    def find(self, setup: Setup) -> bytes | None:
        """What a GET_DESCRIPTOR request names; None if the device has no such thing."""
        kind, index = setup.wValue >> 8, setup.wValue & 0xFF
        if setup.bmRequestType & 0x1F == requests.RECIPIENT_INTERFACE:
            return self.reports.get(setup.wIndex) if kind == requests.DT_REPORT else None
        if kind == requests.DT_DEVICE:
            return self.device
        if kind == requests.DT_CONFIGURATION and index < len(self.configurations):
            return self.configurations[index]
        if kind == requests.DT_BOS and self.bos:
            return self.bos
        if kind == requests.DT_DEVICE_QUALIFIER and self.qualifier:
            return self.qualifier
        if kind == requests.DT_STRING and self.strings:
            if index == 0:
                return bytes([4, requests.DT_STRING]) + LANGID.to_bytes(2, "little")
            return pack_string(self.strings[index - 1]) if index <= len(self.strings) else None
        return None

    def serial_ports(self, speed: Speed) -> list[Port]:
        """The serial ports of the first configuration."""
        return find_ports(DeviceDescriptor.parse(self.device), parse_configuration(self.configurations[0]), speed)

    def info(self, busid: str, busnum: int, devnum: int, speed: Speed) -> DeviceInfo:
        """What a server reports of such a device: not configured yet, but with the interfaces that it will have."""
        device = DeviceDescriptor.parse(self.device)
        first = parse_configuration(self.configurations[0])
        interfaces = [
            InterfaceInfo(i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol)
            for i in first.interfaces
            if not i.bAlternateSetting
        ]
        return DeviceInfo(
            busid,
            busnum,
            devnum,
            speed,
            device.idVendor,
            device.idProduct,
            device.bcdDevice,
            device.bDeviceClass,
            device.bDeviceSubClass,
            device.bDeviceProtocol,
            0,
            device.bNumConfigurations,
            len(interfaces),
            f"/sys/devices/simulated/{busid}",
            tuple(interfaces),
        )


class StandardRequests:
    """The state that standard requests read and change. Not locked: the device that owns it does that."""

    def __init__(self, descriptors: Descriptors, speed: Speed) -> None:
        self.descriptors = descriptors
        self.configuration = 0
        self.endpoints = EndpointMap(None, speed)
        self.halted: set[int] = set()
        self._alternates: dict[int, int] = {}
        self._parsed = [parse_configuration(raw) for raw in descriptors.configurations]
        for configuration in self._parsed:
            self.endpoints.add_configuration(configuration)

    def answer(self, setup: Setup) -> bytes | None:
        """The data stage of an IN request, b"" for one without; None to stall."""
        request, inward = setup.bRequest, setup.bmRequestType & 0x80
        if inward and request == requests.GET_DESCRIPTOR:
            return self.descriptors.find(setup)
        if inward and request == requests.GET_STATUS:
            return self._status(setup)
        if inward and request == requests.GET_CONFIGURATION:
            return bytes([self.configuration])
        if inward and request == requests.GET_INTERFACE:
            known = self.configuration and setup.wIndex in self._interfaces()
            return bytes([self._alternates.get(setup.wIndex, 0)]) if known else None
        if not inward:
            return self._change(setup)
        return None

    def _change(self, setup: Setup) -> bytes | None:
        action = requests.classify(setup.pack())
        if isinstance(action, requests.SetConfiguration):
            if action.value not in (0, *(c.bConfigurationValue for c in self._parsed)):
                return None
            self.configuration = action.value
            self._alternates.clear()
            self.halted.clear()
        elif isinstance(action, requests.SetInterface):
            if action.alternate not in self._interfaces().get(action.interface, ()):
                return None
            self._alternates[action.interface] = action.alternate
        elif isinstance(action, requests.ClearHalt):
            if action.endpoint & 0x0F and self.endpoints.find(action.endpoint) is None:
                return None
            self.halted.discard(action.endpoint)
        elif setup[:3] == (requests.RECIPIENT_ENDPOINT, requests.SET_FEATURE, requests.ENDPOINT_HALT):
            if self.endpoints.find(setup.wIndex & 0x8F) is None:
                return None
            self.halted.add(setup.wIndex & 0x8F)
        elif setup[:3] not in _REMOTE_WAKEUP:
            return None
        self.endpoints.follow(setup.pack())
        return b""

    def _status(self, setup: Setup) -> bytes | None:
        recipient = setup.bmRequestType & 0x1F
        if recipient == requests.RECIPIENT_DEVICE:
            powered = any(c.bmAttributes & _SELF_POWERED for c in self._parsed)
            return bytes([int(powered), 0])
        if recipient == requests.RECIPIENT_INTERFACE:
            return bytes(2)
        if recipient == requests.RECIPIENT_ENDPOINT:
            return bytes([int(setup.wIndex in self.halted), 0])
        return None

    def _interfaces(self) -> dict[int, list[int]]:
        """Alternate settings by interface, of the active configuration."""
        found: dict[int, list[int]] = {}
        active = self.endpoints.configuration
        for interface in active.interfaces if active else ():
            found.setdefault(interface.bInterfaceNumber, []).append(interface.bAlternateSetting)
        return found


_REMOTE_WAKEUP = {
    (requests.RECIPIENT_DEVICE, requests.SET_FEATURE, requests.DEVICE_REMOTE_WAKEUP),
    (requests.RECIPIENT_DEVICE, requests.CLEAR_FEATURE, requests.DEVICE_REMOTE_WAKEUP),
}
