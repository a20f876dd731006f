"""The devices of this machine as those of a server: the host name `local`, wherever a host is taken.

There is no wire: what is imported is a device of libusb, captured, read and used as any other one.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from usbip_capture.device import Device
from usbip_capture.devices import holders, uses
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.errors import DeviceNotFound, ImportRefused, UsbipError
from usbip_capture.servers.address import LOCAL, Selector, ServerAddress, listing
from usbip_capture.system.shown import one_line
from usbip_capture.wire.structs import OpStatus

if TYPE_CHECKING:
    from usbip_capture.devices.libusb.local_device import LocalDevice

log = logging.getLogger(__name__)

_HUB = 9
#: iSerialNumber in the device descriptor. Ref: USB 2.0, table 9-8
_SERIAL_OFFSET = 16


def devices() -> list[LocalDevice]:
    """What can be used, as far as a list can show: all but hubs. Raises LibusbMissing."""
    return [device for device in LocalBus.shared().devices() if not is_hub(device)]


def hub_ports() -> dict[str, int]:
    """How many ports each hub has, as `devices.sysfs` has it. Raises LibusbMissing."""
    return LocalBus.shared().hub_ports()


def is_hub(device: LocalDevice) -> bool:
    """Whether other devices are plugged into it: who takes it has them all unplugged."""
    return device.info.bDeviceClass == _HUB


def find(selector: Selector) -> LocalDevice:
    """The one that is meant. Raises DeviceNotFound, its sentence listing what there is."""
    meant = [device for device in LocalBus.shared().devices() if selector.matches(device.info)]
    if selector.serial:
        meant = [device for device in meant if serial_number(device) == selector.serial]
    hubs = [device for device in meant if is_hub(device)]
    meant = [device for device in meant if not is_hub(device)]
    if len(meant) == 1:
        return meant[0]
    wanted = one_line(str(selector))
    if meant:
        several = f" {wanted}" if wanted else ""
        raise DeviceNotFound(f"this machine has several devices{several}: name one by its busid: {_listing(meant)}")
    if wanted and hubs:
        raise DeviceNotFound(f"device {hubs[0].info} is a hub, which nobody can have: name what is plugged into it")
    if there := devices():
        raise DeviceNotFound(f"this machine has no device {wanted}: it has {_listing(there)}")
    raise DeviceNotFound(ServerAddress(LOCAL).empty)


def open_device(selector: Selector) -> Device:
    """Have the device that is meant, its kernel drivers unbound until it is closed.

    Raises DeviceNotFound, and ImportRefused with what helps: no permission, in use by another program, or by this
    machine itself, which would lose data or its connection to whoever asks.
    """
    device = find(selector)
    info = device.info
    for use in uses.uses(device.sysfs):
        if use.vital:
            raise ImportRefused(
                f"device {info} is in use by this machine: it is {use}; unmount it or end that first", OpStatus.DEV_BUSY
            )
        if use.kind == uses.KEYBOARD:
            log.warning("device %s is %s: it types nothing here until it is released", info, use)
    held = holders.interface_holders(device.sysfs)
    try:
        opened = device.open()
    except DeviceNotFound as error:
        raise _explained(device, held, error) from error
    for number in sorted(opened.unclaimed.keys() & held.keys()):
        log.warning("interface %d of device %s is held by %s", number, info, _program(held[number]))
    return opened


def serial_number(device: LocalDevice) -> str:
    """As the system has read it; where it does not, the device is opened for it. Empty if there is none to be had."""
    if device.sysfs or not device.device_descriptor[_SERIAL_OFFSET:][:1].strip(b"\0"):
        return device.serial
    from usbip_capture.devices.serial_number import read_serial_number

    try:
        opened = device.open()
    except UsbipError as error:
        log.debug("its serial number cannot be read: %s", error)
        return ""
    try:
        return read_serial_number(opened)
    finally:
        opened.close()


def _explained(device: LocalDevice, held: dict[int, holders.Holder], error: DeviceNotFound) -> UsbipError:
    """Why it cannot be opened, and what helps."""
    info, cause = device.info, error.__cause__
    if isinstance(cause, Failure) and cause.code == statuses.ERROR_NO_DEVICE:
        return error  # unplugged since it was listed
    obstacle = holders.obstacle(info, device.sysfs)
    if obstacle is not None:
        return ImportRefused(f"device {info} cannot be used: {obstacle}", OpStatus.NA)
    # Drivers of the kernel make room for libusb, programs do not.
    programs = [_program(holder) for holder in held.values() if holder.pid or holder == holders.SOMEBODY]
    if programs:
        who = ", ".join(dict.fromkeys(programs))
        return ImportRefused(f"device {info} is in use by {who}: end that first", OpStatus.DEV_BUSY)
    return ImportRefused(str(error), OpStatus.NA)


def _program(holder: holders.Holder) -> str:
    return "this program" if holder.pid == os.getpid() else str(holder)


def _listing(found: list[LocalDevice]) -> str:
    return listing([device.info for device in found])
