"""Device and configuration descriptors, with the field names of the USB specification.

Tolerant of what devices really send: unknown and malformed descriptors are kept as bytes in `extra_descriptors` of
the standard descriptor before them, as libusb does; nothing is believed to be longer than the data.

Ref: USB 2.0 specification, 9.6; USB 3.2 specification, 9.6.7 (companion); ECN Interface Association Descriptors
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import TypeAlias

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb import class_descriptors as classes
from usbip_capture.usb.setup import (
    DT_CONFIGURATION,
    DT_ENDPOINT,
    DT_HID,
    DT_INTERFACE,
    DT_INTERFACE_ASSOCIATION,
    DT_SS_ENDPOINT_COMPANION,
)
from usbip_capture.usb.urb import Buffer

_HID = 3  # bInterfaceClass
_DEVICE = Struct("<BBHBBBBHHHBBBB")
_CONFIGURATION = Struct("<BBHBBBBB")
_INTERFACE = Struct("<9B")
_ENDPOINT = Struct("<BBBBHB")
_ASSOCIATION = Struct("<8B")


@dataclass(slots=True, frozen=True)
class DeviceDescriptor:
    """Ref: USB 2.0, table 9-8."""

    bLength: int
    bDescriptorType: int
    bcdUSB: int
    bDeviceClass: int
    bDeviceSubClass: int
    bDeviceProtocol: int
    bMaxPacketSize0: int
    idVendor: int
    idProduct: int
    bcdDevice: int
    iManufacturer: int
    iProduct: int
    iSerialNumber: int
    bNumConfigurations: int

    @classmethod
    def parse(cls, raw: Buffer) -> DeviceDescriptor:
        """From at least 18 bytes. Raises RemoteProtocolError for fewer."""
        if len(raw) < _DEVICE.size:
            raise RemoteProtocolError(f"the device descriptor has {len(raw)} bytes instead of {_DEVICE.size}")
        return cls(*_DEVICE.unpack_from(raw))

    def pack(self) -> bytes:
        """Inverse of `parse`."""
        return _DEVICE.pack(*(getattr(self, name) for name in self.__slots__))


@dataclass(slots=True)
class EndpointDescriptor:
    """Ref: USB 2.0, table 9-13. bRefresh and bSynchAddress are of 9-byte audio endpoints, else 0."""

    bLength: int
    bDescriptorType: int
    bEndpointAddress: int
    bmAttributes: int
    wMaxPacketSize: int
    bInterval: int
    bRefresh: int = 0
    bSynchAddress: int = 0
    companion: classes.SuperSpeedCompanion | None = None
    extra_descriptors: bytes = b""


@dataclass(slots=True)
class InterfaceDescriptor:
    """One alternate setting. Ref: USB 2.0, table 9-12."""

    bLength: int
    bDescriptorType: int
    bInterfaceNumber: int
    bAlternateSetting: int
    bNumEndpoints: int
    bInterfaceClass: int
    bInterfaceSubClass: int
    bInterfaceProtocol: int
    iInterface: int
    endpoints: list[EndpointDescriptor] = field(default_factory=list)
    hid: classes.HidDescriptor | None = None
    extra_descriptors: bytes = b""

    @property
    def functional(self) -> list[classes.CdcFunctional]:
        """The CDC functional descriptors of a communications interface."""
        return list(classes.cdc_functional(self.extra_descriptors))


@dataclass(slots=True, frozen=True)
class InterfaceAssociation:
    """Several interfaces that are one function. Ref: ECN Interface Association Descriptors, table 9-Z."""

    bLength: int
    bDescriptorType: int
    bFirstInterface: int
    bInterfaceCount: int
    bFunctionClass: int
    bFunctionSubClass: int
    bFunctionProtocol: int
    iFunction: int


@dataclass(slots=True)
class ConfigurationDescriptor:
    """A configuration with all that follows it. `interfaces` has each alternate setting, in the order of the bytes.

    Ref: USB 2.0, table 9-10
    """

    bLength: int
    bDescriptorType: int
    wTotalLength: int
    bNumInterfaces: int
    bConfigurationValue: int
    iConfiguration: int
    bmAttributes: int
    bMaxPower: int
    interfaces: list[InterfaceDescriptor] = field(default_factory=list)
    associations: list[InterfaceAssociation] = field(default_factory=list)
    extra_descriptors: bytes = b""


_Owner: TypeAlias = "ConfigurationDescriptor | InterfaceDescriptor | EndpointDescriptor"


def read_configuration(index: int, read: Callable[[int, int, int], bytes]) -> ConfigurationDescriptor:
    """A configuration by its index, with the request of Linux: its first 9 bytes have its length.

    read: GET_DESCRIPTOR by bDescriptorType, index and length. Raises RemoteProtocolError, and what `read` raises.
    """
    total = int.from_bytes(read(DT_CONFIGURATION, index, 9)[2:4], "little")
    return parse_configuration(read(DT_CONFIGURATION, index, max(total, 9)))


def parse_configuration(raw: Buffer) -> ConfigurationDescriptor:
    """A configuration descriptor and what follows it, up to wTotalLength or the end of the data.

    Raises RemoteProtocolError only if there are not even the 9 bytes of its header.
    """
    data = bytes(raw)
    if len(data) < _CONFIGURATION.size:
        raise RemoteProtocolError(f"the configuration descriptor has {len(data)} bytes instead of at least 9")
    if data[1] != DT_CONFIGURATION:
        raise RemoteProtocolError(f"a descriptor of type {data[1]:#x} came instead of a configuration descriptor")
    configuration = ConfigurationDescriptor(*_CONFIGURATION.unpack_from(data))
    end = min(len(data), max(configuration.wTotalLength, _CONFIGURATION.size))
    # A header longer than the standard one is kept whole, its tail as extra bytes.
    start = min(max(data[0], _CONFIGURATION.size), end)
    # Joined once for each owner: a configuration can hold 32 767 descriptors of two bytes.
    owner: _Owner = configuration
    extra = [data[_CONFIGURATION.size : start]]
    for piece in split_descriptors(data[start:end]):
        of = _add(configuration, piece)
        if of is None:
            continue
        if of is not owner:
            owner.extra_descriptors += b"".join(extra)
            owner, extra = of, []
        extra.append(piece)
    owner.extra_descriptors += b"".join(extra)
    return configuration


def max_power_unit(bcdUSB: int) -> int:
    """Milliamperes that one of bMaxPower stands for. Ref: USB 2.0, table 9-10; USB 3.2, table 9-22."""
    return 8 if bcdUSB >= 0x0300 else 2


def split_descriptors(data: bytes) -> Iterator[bytes]:
    """The descriptors in `data`, one after the other; from a malformed one on, all the rest as one piece."""
    at = 0
    while at < len(data):
        length = data[at]
        if length < 2 or at + length > len(data):
            yield data[at:]
            return
        yield data[at : at + length]
        at += length


def _add(configuration: ConfigurationDescriptor, piece: bytes) -> _Owner | None:
    """Put one descriptor where it belongs; the one whose `extra_descriptors` it extends, None for a standard one."""
    kind = piece[1] if len(piece) > 1 else -1
    whole = len(piece) >= 2 and piece[0] == len(piece)
    interface = configuration.interfaces[-1] if configuration.interfaces else None
    if whole and kind == DT_INTERFACE and len(piece) >= _INTERFACE.size:
        added = InterfaceDescriptor(*_INTERFACE.unpack_from(piece))
        added.extra_descriptors = piece[_INTERFACE.size :]
        configuration.interfaces.append(added)
        return None
    if whole and kind == DT_ENDPOINT and len(piece) >= _ENDPOINT.size and interface is not None:
        interface.endpoints.append(_endpoint(piece))
        return None
    if whole and kind == DT_INTERFACE_ASSOCIATION and len(piece) >= _ASSOCIATION.size:
        configuration.associations.append(InterfaceAssociation(*_ASSOCIATION.unpack_from(piece)))
    if interface is None:
        return configuration
    # Of other classes the same type means something else: a card reader's, firmware upgrade's.
    is_hid = interface.bInterfaceClass == _HID
    if not interface.endpoints:
        if whole and kind == DT_HID and is_hid and interface.hid is None:
            interface.hid = classes.HidDescriptor.parse(piece)
        return interface
    endpoint = interface.endpoints[-1]
    if whole and kind == DT_SS_ENDPOINT_COMPANION:
        endpoint.companion = classes.SuperSpeedCompanion.parse(piece)
    elif whole and kind == DT_HID and is_hid and interface.hid is None:
        # Early HID 1.0 devices put it after the endpoint.
        interface.hid = classes.HidDescriptor.parse(piece)
    return endpoint


def _endpoint(piece: bytes) -> EndpointDescriptor:
    endpoint = EndpointDescriptor(*_ENDPOINT.unpack_from(piece))
    if len(piece) >= 9:
        endpoint.bRefresh, endpoint.bSynchAddress = piece[7], piece[8]
        endpoint.extra_descriptors = piece[9:]
    else:
        endpoint.extra_descriptors = piece[_ENDPOINT.size :]
    return endpoint
