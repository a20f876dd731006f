"""The endpoints that a device has now: those of the current alternate settings of its active configuration.

Neither USB/IP nor usbmon's users get an endpoint's type; it follows from the configuration descriptors and from
the SET_CONFIGURATION and SET_INTERFACE requests that went by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from usbip_capture.usb.descriptors import ConfigurationDescriptor, EndpointDescriptor, InterfaceDescriptor
from usbip_capture.usb.info import Speed
from usbip_capture.usb.setup import SetConfiguration, SetInterface, classify
from usbip_capture.usb.urb import TransferType

#: Configurations that are remembered: more than devices have; a map must not grow with what a device claims.
MAX_CONFIGURATIONS = 32

# bmAttributes, bits 1..0. Ref: USB 2.0, table 9-13
_TRANSFER_TYPES = (TransferType.CONTROL, TransferType.ISOCHRONOUS, TransferType.BULK, TransferType.INTERRUPT)


@dataclass(slots=True, frozen=True)
class Endpoint:
    """packet_size: bytes per frame or microframe. interval: as submitted, in frames (1 ms) or microframes (125 us)."""

    address: int
    transfer_type: TransferType
    wMaxPacketSize: int
    packet_size: int
    bInterval: int
    interval: int
    bInterfaceNumber: int
    bAlternateSetting: int
    bInterfaceClass: int
    bInterfaceSubClass: int
    bInterfaceProtocol: int

    @classmethod
    def of(cls, endpoint: EndpointDescriptor, interface: InterfaceDescriptor, speed: Speed) -> Endpoint:
        """An endpoint of an alternate setting of a device at `speed`."""
        kind = _TRANSFER_TYPES[endpoint.bmAttributes & 3]
        return cls(
            endpoint.bEndpointAddress,
            kind,
            endpoint.wMaxPacketSize,
            _packet_size(endpoint, kind, speed),
            endpoint.bInterval,
            polling_interval(kind, endpoint.bInterval, speed),
            interface.bInterfaceNumber,
            interface.bAlternateSetting,
            interface.bInterfaceClass,
            interface.bInterfaceSubClass,
            interface.bInterfaceProtocol,
        )


def polling_interval(kind: TransferType, bInterval: int, speed: Speed) -> int:
    """The interval of a URB as Linux submits it: a power of two, 0 for bulk and control.

    Ref: Linux include/linux/usb.h, usb_fill_int_urb; drivers/usb/core/urb.c, usb_submit_urb
    """
    if kind not in (TransferType.INTERRUPT, TransferType.ISOCHRONOUS):
        return 0
    if speed >= Speed.HIGH or kind == TransferType.ISOCHRONOUS:
        interval = 1 << min(max(bInterval, 1), 16) - 1
    else:
        interval = max(bInterval, 1)
    return min(1 << interval.bit_length() - 1, _longest(kind, speed))


def _longest(kind: TransferType, speed: Speed) -> int:
    if speed >= Speed.SUPER:
        return 32768
    if speed >= Speed.HIGH:
        return 8192
    return 1024 if kind == TransferType.ISOCHRONOUS else 128


def _packet_size(endpoint: EndpointDescriptor, kind: TransferType, speed: Speed) -> int:
    size = endpoint.wMaxPacketSize & 0x7FF
    if kind not in (TransferType.INTERRUPT, TransferType.ISOCHRONOUS):
        return size
    if speed >= Speed.SUPER and endpoint.companion is not None:
        return endpoint.companion.wBytesPerInterval or size * (endpoint.companion.bMaxBurst + 1)
    if speed >= Speed.HIGH:
        return size * (1 + (endpoint.wMaxPacketSize >> 11 & 3))
    return size


class EndpointMap:
    """Endpoints by address, as the active configuration and the alternate settings have them."""

    def __init__(self, configuration: ConfigurationDescriptor | None, speed: Speed) -> None:
        self._speed = speed
        self._known: dict[int, _Settings] = {}  # by bConfigurationValue
        self._endpoints: dict[int, Endpoint] = {}
        self._active: _Settings | None = None
        if configuration is not None:
            self.add_configuration(configuration)
            self.activate(configuration.bConfigurationValue)

    def add_configuration(self, configuration: ConfigurationDescriptor) -> None:
        """Make a configuration known, so that SET_CONFIGURATION of it can be followed."""
        self._known[configuration.bConfigurationValue] = _Settings(configuration, self._speed)
        if len(self._known) > MAX_CONFIGURATIONS:
            self._known.pop(next(iter(self._known)))

    @property
    def configuration(self) -> ConfigurationDescriptor | None:
        """The active one, None while the device is unconfigured."""
        return None if self._active is None else self._active.descriptor

    @property
    def descriptor_bytes(self) -> int:
        """Bytes of the descriptors of all known configurations."""
        return sum(settings.descriptor.wTotalLength for settings in self._known.values())

    def follow(self, setup: bytes) -> None:
        """Take note of a control request that has succeeded."""
        action = classify(setup)
        if isinstance(action, SetConfiguration):
            self.activate(action.value)
        elif isinstance(action, SetInterface):
            self._select(action.interface, action.alternate)

    def find(self, address: int) -> Endpoint | None:
        """The endpoint with this bEndpointAddress, None if there is none now."""
        return self._endpoints.get(address)

    def likely(self, address: int) -> Endpoint | None:
        """As `find`; else what this address is in any known setting: which one is active may not have been seen."""
        found = self._endpoints.get(address)
        if found is not None:
            return found
        known = list(self._known.values()) if self._active is None else [self._active]
        for settings in known:
            found = settings.likely(address)
            if found is not None:
                return found
        return None

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(list(self._endpoints.values()))

    def activate(self, value: int) -> None:
        """The configuration with this bConfigurationValue is the active one now; none if it is not known."""
        self._active = self._known.get(value)
        self._endpoints = {} if self._active is None else dict(self._active.default)

    def _select(self, number: int, alternate: int) -> None:
        selected = None if self._active is None else self._active.setting(number, alternate)
        if selected is not None:
            kept = {a: e for a, e in self._endpoints.items() if e.bInterfaceNumber != number}
            self._endpoints = {**kept, **selected}


class _Settings:
    """The endpoints of a configuration, looked up: a descriptor can have thousands of alternate settings."""

    def __init__(self, descriptor: ConfigurationDescriptor, speed: Speed) -> None:
        self.descriptor = descriptor
        self._speed = speed
        self._found: dict[tuple[int, int], dict[int, Endpoint]] = {}

    @cached_property
    def default(self) -> dict[int, Endpoint]:
        """Those of all alternate settings 0, by address."""
        found: dict[int, Endpoint] = {}
        for interface in self.descriptor.interfaces:
            if not interface.bAlternateSetting:
                found.update(self._endpoints(interface))
        return found

    def setting(self, number: int, alternate: int) -> dict[int, Endpoint] | None:
        """Those of an alternate setting, by address; None if there is no such one."""
        interface = self._interfaces.get((number, alternate))
        if interface is None:
            return None
        if (number, alternate) not in self._found:
            self._found[number, alternate] = self._endpoints(interface)
        return self._found[number, alternate]

    def likely(self, address: int) -> Endpoint | None:
        """The first one with this address in any setting."""
        found = self._first.get(address)
        return None if found is None else Endpoint.of(*found, self._speed)

    @cached_property
    def _interfaces(self) -> dict[tuple[int, int], InterfaceDescriptor]:
        found: dict[tuple[int, int], InterfaceDescriptor] = {}
        for interface in self.descriptor.interfaces:
            found.setdefault((interface.bInterfaceNumber, interface.bAlternateSetting), interface)
        return found

    @cached_property
    def _first(self) -> dict[int, tuple[EndpointDescriptor, InterfaceDescriptor]]:
        found: dict[int, tuple[EndpointDescriptor, InterfaceDescriptor]] = {}
        for interface in self.descriptor.interfaces:
            for endpoint in interface.endpoints:
                found.setdefault(endpoint.bEndpointAddress, (endpoint, interface))
        return found

    def _endpoints(self, interface: InterfaceDescriptor) -> dict[int, Endpoint]:
        last = {endpoint.bEndpointAddress: endpoint for endpoint in interface.endpoints}
        return {address: Endpoint.of(endpoint, interface, self._speed) for address, endpoint in last.items()}
