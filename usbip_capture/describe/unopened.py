"""What is known of a device of this machine without asking it: as the system has read it, in sysfs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from usbip_capture.describe.reading import Description
from usbip_capture.devices.sysfs import contents, folders, interfaces, is_hex, text
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb.bos import parse_bos
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, parse_configuration

if TYPE_CHECKING:
    from usbip_capture.devices.libusb.local_device import LocalDevice

_REPORT = "report_descriptor"


def describe_unopened(device: LocalDevice) -> Description:
    """All descriptors, and the strings and HID reports that the system knows. Raises RemoteProtocolError."""
    info, sysfs = device.info, device.sysfs
    found = Description(
        info,
        DeviceDescriptor.parse(device.device_descriptor),
        [parse_configuration(raw) for raw in device.configurations],
        info.bConfigurationValue,
    )
    known = found.device
    _learn(found, known.iManufacturer, device.manufacturer)
    _learn(found, known.iProduct, device.product)
    _learn(found, known.iSerialNumber, device.serial)
    if not sysfs:
        return found
    active = next((c for c in found.configurations if c.bConfigurationValue == found.active), None)
    if active is not None:
        _learn(found, active.iConfiguration, text(Path(sysfs, "configuration")))
        for folder in interfaces(sysfs):
            _interface(found, active, folder)
    found.bos = contents(Path(sysfs, "bos_descriptors"))
    try:
        found.capabilities = parse_bos(found.bos) if found.bos else []
    except RemoteProtocolError:
        found.bos = b""
    return found


def _learn(found: Description, index: int, string: str) -> None:
    if index and string:
        found.strings[index] = string


def _interface(found: Description, active: ConfigurationDescriptor, folder: Path) -> None:
    """The name of an interface in its current setting, and its HID report descriptor, where a driver has read it."""
    number, setting = (text(folder / name) for name in ("bInterfaceNumber", "bAlternateSetting"))
    if not is_hex(number) or not setting.isdecimal():
        return
    place = int(number, 16), int(setting)
    for interface in active.interfaces:
        if (interface.bInterfaceNumber, interface.bAlternateSetting) == place:
            _learn(found, interface.iInterface, text(folder / "interface"))
    for driver in folders(folder):
        report = contents(driver / _REPORT)
        if report and not driver.is_symlink():
            found.reports[place[0]] = report
