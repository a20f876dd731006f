"""Everything that a device reports about itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from usbip_capture.describe.classes import string_indices
from usbip_capture.errors import DeviceError, DeviceGone, RemoteProtocolError, TransferTimeout
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.usb import setup as requests
from usbip_capture.usb.bos import DeviceCapability, parse_bos
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.strings import parse_langids, parse_string

_TIMEOUT = 1.0
#: bcdUSB from which on a device may have a BOS descriptor.
_BOS_SINCE = 0x0201
#: bcdUSB of devices that are asked for a device qualifier, at any speed: those that lsusb asks.
_QUALIFIER_OF = 0x0200
#: A device that leaves so many optional requests unanswered is not asked for more of them.
_PATIENCE = 2


@dataclass(slots=True)
class Description:
    """strings: by index. reports: HID report descriptors by bInterfaceNumber. qualifier: raw, empty if there is none.

    status: of GET_STATUS, None if the device does not report it.
    """

    info: DeviceInfo
    device: DeviceDescriptor
    configurations: list[ConfigurationDescriptor]
    active: int
    strings: dict[int, str] = field(default_factory=dict)
    capabilities: list[DeviceCapability] = field(default_factory=list)
    bos: bytes = b""
    qualifier: bytes = b""
    reports: dict[int, bytes] = field(default_factory=dict)
    status: int | None = None


def read_description(handle: DeviceHandle) -> Description:
    """All descriptors and strings of a device; what is optional and not there is passed over. Raises DeviceError."""
    handle.ensure_configured()
    device = handle.device_descriptor()
    info = handle.device.info
    found = Description(info, device, handle.configurations(), handle.configuration_value())
    reader = _Reader(handle)
    found.strings = reader.strings(_string_indices(found))
    if device.bcdUSB >= _BOS_SINCE:
        found.bos = reader.bos()
        try:
            found.capabilities = parse_bos(found.bos) if found.bos else []
        except RemoteProtocolError:
            found.bos = b""
    if device.bcdUSB == _QUALIFIER_OF:
        found.qualifier = reader.descriptor(requests.DT_DEVICE_QUALIFIER, 0, 0, 10)
    for configuration in found.configurations:
        if configuration.bConfigurationValue == found.active:
            found.reports = reader.reports(configuration)
    raw = reader.optional(Setup(0x80, requests.GET_STATUS, 0, 0, 2))
    found.status = int.from_bytes(raw, "little") if len(raw) == 2 else None
    return found


def _string_indices(found: Description) -> list[int]:
    device = found.device
    indices = [device.iManufacturer, device.iProduct, device.iSerialNumber]
    for configuration in found.configurations:
        indices.append(configuration.iConfiguration)
        for interface in configuration.interfaces:
            indices += [interface.iInterface, *string_indices(interface)]
        indices += [association.iFunction for association in configuration.associations]
    return [index for index in dict.fromkeys(indices) if index]


class _Reader:
    """Requests that a device need not answer."""

    def __init__(self, handle: DeviceHandle) -> None:
        self._handle = handle
        self._unanswered = 0

    def optional(self, setup: Setup) -> bytes:
        """What a request brings; empty if it fails. Raises DeviceGone once the device is gone."""
        if self._unanswered >= _PATIENCE:
            return b""
        try:
            return self._handle.control(setup, timeout=_TIMEOUT)
        except DeviceGone:
            raise
        except DeviceError as error:
            self._unanswered += isinstance(error, TransferTimeout)
            return b""

    def descriptor(self, kind: int, index: int, w_index: int, length: int, recipient: int = 0) -> bytes:
        return self.optional(requests.get_descriptor(kind, index, w_index, length, recipient))

    def strings(self, indices: list[int]) -> dict[int, str]:
        languages = parse_langids(self.descriptor(requests.DT_STRING, 0, 0, 255)) if indices else []
        if not languages:
            return {}
        raw = {index: self.descriptor(requests.DT_STRING, index, languages[0], 255) for index in indices}
        return {index: parse_string(text) for index, text in raw.items() if text}

    def bos(self) -> bytes:
        head = self.descriptor(requests.DT_BOS, 0, 0, 5)
        total = int.from_bytes(head[2:4], "little")
        return self.descriptor(requests.DT_BOS, 0, 0, total) if total > 5 else b""

    def reports(self, configuration: ConfigurationDescriptor) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for interface in configuration.interfaces:
            if interface.hid is not None and not interface.bAlternateSetting:
                number, length = interface.bInterfaceNumber, interface.hid.report_length
                raw = self.descriptor(requests.DT_REPORT, 0, number, length, 1) if length else b""
                if raw:
                    found[number] = raw
        return found
