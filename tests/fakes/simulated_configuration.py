"""A configuration as `usb1` has it, for the module that stands in for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from usbip_capture.usb.descriptors import ConfigurationDescriptor


class Configuration:
    """As `usb1.USBConfiguration`, of what our parser says."""

    def __init__(self, parsed: ConfigurationDescriptor) -> None:
        self._parsed = parsed
        self.getNumInterfaces = lambda: parsed.bNumInterfaces
        self.getConfigurationValue = lambda: parsed.bConfigurationValue
        self.getDescriptor = lambda: parsed.iConfiguration
        self.getAttributes = lambda: parsed.bmAttributes
        self.getMaxPower = lambda: parsed.bMaxPower * 2
        self.getExtra = lambda: [parsed.extra_descriptors] if parsed.extra_descriptors else []

    def __iter__(self) -> Iterator[list[Any]]:
        numbers = dict.fromkeys(interface.bInterfaceNumber for interface in self._parsed.interfaces)
        for number in numbers:
            yield [_Setting(i) for i in self._parsed.interfaces if i.bInterfaceNumber == number]


class _Setting:
    def __init__(self, parsed: Any) -> None:
        self._parsed = parsed
        self.getNumber = lambda: parsed.bInterfaceNumber
        self.getAlternateSetting = lambda: parsed.bAlternateSetting
        self.getNumEndpoints = lambda: parsed.bNumEndpoints
        self.getClass = lambda: parsed.bInterfaceClass
        self.getSubClass = lambda: parsed.bInterfaceSubClass
        self.getProtocol = lambda: parsed.bInterfaceProtocol
        self.getDescriptor = lambda: parsed.iInterface
        self.getExtra = lambda: [parsed.extra_descriptors] if parsed.extra_descriptors else []

    def __iter__(self) -> Iterator[Any]:
        for endpoint in self._parsed.endpoints:
            yield SimpleNamespace(
                getAddress=lambda e=endpoint: e.bEndpointAddress,
                getAttributes=lambda e=endpoint: e.bmAttributes,
                getMaxPacketSize=lambda e=endpoint: e.wMaxPacketSize,
                getInterval=lambda e=endpoint: e.bInterval,
                getExtra=lambda e=endpoint: [e.extra_descriptors] if e.extra_descriptors else [],
            )
