"""Descriptors as bytes: from sysfs where that is, else put together from what libusb has read."""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import Any

from usbip_capture.usb.setup import DT_CONFIGURATION, DT_DEVICE, DT_ENDPOINT, DT_INTERFACE

_DEVICE = Struct("<BBHBBBBHHHBBBB")
_DEVICE_FIELDS = (
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


def device_descriptor(raw: Any) -> bytes:
    """Of a device of usb1."""
    return _DEVICE.pack(18, DT_DEVICE, *(getattr(raw.device_descriptor, name) for name in _DEVICE_FIELDS))


def configurations_of(raw: Any, sysfs: str) -> list[bytes]:
    """Each configuration with all that follows it."""
    if sysfs:
        try:
            return split_configurations(Path(sysfs, "descriptors").read_bytes()[18:])
        except OSError:  # it has just left
            pass
    return [_configuration(configuration) for configuration in raw.iterConfigurations()]


def split_configurations(data: bytes) -> list[bytes]:
    """Of configurations that follow each other, by their wTotalLength."""
    found = []
    while len(data) >= 9 and data[1] == DT_CONFIGURATION:
        total = max(int.from_bytes(data[2:4], "little"), 9)
        found.append(data[:total])
        data = data[total:]
    return found


def _configuration(configuration: Any) -> bytes:
    """What libusb has taken apart, as it was but for the order of descriptors between those of the standard."""
    body = b"".join(bytes(extra) for extra in configuration.getExtra())
    for interface in configuration:
        for setting in interface:
            body += bytes([9, DT_INTERFACE, setting.getNumber(), setting.getAlternateSetting()])
            body += bytes([setting.getNumEndpoints(), setting.getClass(), setting.getSubClass(), setting.getProtocol()])
            body += bytes([setting.getDescriptor()]) + b"".join(bytes(extra) for extra in setting.getExtra())
            for endpoint in setting:
                body += bytes([7, DT_ENDPOINT, endpoint.getAddress(), endpoint.getAttributes()])
                body += endpoint.getMaxPacketSize().to_bytes(2, "little") + bytes([endpoint.getInterval()])
                body += b"".join(bytes(extra) for extra in endpoint.getExtra())
    head = bytes([9, DT_CONFIGURATION]) + (9 + len(body)).to_bytes(2, "little")
    numbers = (
        configuration.getNumInterfaces(),
        configuration.getConfigurationValue(),
        configuration.getDescriptor(),
        configuration.getAttributes(),
        _power(configuration),
    )
    return head + bytes(numbers) + body


def _power(configuration: Any) -> int:
    return min(int(configuration.getMaxPower()) // 2, 255)
