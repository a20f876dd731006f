"""The power of a hub's ports, switched off and on where the hub can do that for each port by itself.

The hub is neither claimed nor taken from the kernel's driver, which would lose all that is behind it. A port of a
USB 3 hub is two, one for each of its buses: where Linux knows the other one, both are switched.

Ref: USB 2.0 specification, 11.23.2.1 (Hub Descriptor), 11.24.2 (Class-specific Requests); USB 3.2, 10.15.2.1; Linux
Documentation/ABI/testing/sysfs-bus-usb (.../portX/disable, .../portX/peer)
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.handle import Handle
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.usb.setup import CLEAR_FEATURE, GET_DESCRIPTOR, SET_FEATURE, Setup

log = logging.getLogger(__name__)

_PORT_POWER = 8
_DT_HUB, _DT_SUPERSPEED_HUB = 0x29, 0x2A
_OF_HUB, _OF_PORT = 0xA0, 0x23
_DESCRIPTOR_SIZE = 12
#: libusb's speeds from which on a hub is one of USB 3.
SUPERSPEED = 4
#: wHubCharacteristics, bits 0 and 1: how power is switched.
_POWER_SWITCHING, _TOGETHER, _EACH = 0x03, 0, 1
#: Seconds for a request to a hub, and for its end when it is cancelled.
_TIMEOUT, _PATIENCE = 5.0, 1.0
_PEER = re.compile(r"(?:usb([0-9]+)|([0-9]+)-([0-9]+(?:\.[0-9]+)*))-port([0-9]+)")
_BUSID = re.compile(r"([0-9]{1,3})-([0-9]{1,3}(?:\.[0-9]{1,3})*)")


class OpenedHub(NamedTuple):
    """superspeed: whether it is one of USB 3."""

    handle: Handle
    superspeed: bool


#: Opens the hub that is on a bus behind ports from the controller down; None: there is none. Raises Failure.
OpenHub: TypeAlias = "Callable[[int, tuple[int, ...]], OpenedHub | None]"


class _Stuck(Failure):
    """A request has not even ended when it was cancelled."""


class Port(NamedTuple):
    """A port of the hub that is behind `hub`, ports from the controller down, on a bus; empty: the controller's own."""

    busnum: int
    hub: tuple[int, ...]
    number: int

    @classmethod
    def of(cls, busid: str) -> Port:
        """Where a device of this busid is plugged in. Raises DeviceNotFound."""
        found = _BUSID.fullmatch(busid)
        if found is None:
            raise DeviceNotFound(f"{busid!r} is not a port: give one such as 1-1.4")
        *hub, number = map(int, found[2].split("."))
        return cls(int(found[1]), tuple(hub), number)

    @property
    def hub_name(self) -> str:
        """As Linux calls it."""
        return f"{self.busnum}-{'.'.join(map(str, self.hub))}" if self.hub else f"usb{self.busnum}"

    def folder(self, sysfs: str) -> Path:
        """In sysfs."""
        interface = f"{self.hub_name if self.hub else f'{self.busnum}-0'}:1.0"
        return Path(sysfs, interface, f"{self.hub_name}-port{self.number}")

    def peer(self, sysfs: str) -> Port | None:
        """The same socket on the other bus of a USB 3 controller."""
        try:
            found = _PEER.fullmatch(os.path.basename(os.readlink(self.folder(sysfs) / "peer")))
        except OSError:
            return None
        if found is None:
            return None
        hub = tuple(map(int, found[3].split("."))) if found[3] else ()
        return Port(int(found[1] or found[2]), hub, int(found[4]))


def switch_power(open_hub: OpenHub, sysfs: str, busid: str, on: bool) -> None:
    """Switch the power of the port `busid`. Raises DeviceNotFound, UsbipError: its hub cannot do that.

    sysfs: Linux's folder of USB devices; where there is none, only the hub is asked.
    """
    port = Port.of(busid)
    peer = port.peer(sysfs)
    _switch(open_hub, sysfs, port, on)
    if peer is not None:
        try:
            _switch(open_hub, sysfs, peer, on)
        except UsbipError as error:  # a device that is not of USB 3 has no use for it
            log.warning("%s is switched, but not its other bus: %s", busid, error)


def _switch(open_hub: OpenHub, sysfs: str, port: Port, on: bool) -> None:
    try:
        opened = open_hub(port.busnum, port.hub)
    except Failure as failure:
        raise _cannot(port, _WHY.get(failure.code, str(failure))) from failure
    if opened is None:
        raise DeviceNotFound(f"there is no hub {port.hub_name} that could switch the power of a port")
    handle = opened.handle
    try:
        _check(handle, port, opened.superspeed)
        if not _disable(port.folder(sysfs) / "disable", not on):
            feature = SET_FEATURE if on else CLEAR_FEATURE
            _request(handle, (_OF_PORT, feature, _PORT_POWER, port.number, 0), b"")
    except _Stuck as failure:
        handle.keep()
        raise _cannot(port, "it does not answer") from failure
    except Failure as failure:
        handle.close()
        raise _cannot(port, f"it refuses ({failure})") from failure
    except UsbipError:
        handle.close()
        raise
    handle.close()


def _check(handle: Handle, port: Port, superspeed: bool) -> None:
    """Raises UsbipError if it does not switch this port by itself."""
    kind = _DT_SUPERSPEED_HUB if superspeed else _DT_HUB
    raw = _request(handle, (_OF_HUB, GET_DESCRIPTOR, kind << 8, 0, _DESCRIPTOR_SIZE), None)
    if len(raw) < 5 or raw[1] != kind:
        raise _cannot(port, "its descriptor is not that of a hub")
    if not 1 <= port.number <= raw[2]:
        raise DeviceNotFound(f"the hub {port.hub_name} has ports 1 to {raw[2]}, not {port.number}")
    switching = int.from_bytes(raw[3:5], "little") & _POWER_SWITCHING
    if switching == _TOGETHER and raw[2] > 1:
        raise _cannot(port, "it switches all its ports together")
    if switching not in (_TOGETHER, _EACH):
        raise _cannot(port, "it has no power switches")


def _disable(path: Path, disabled: bool) -> bool:
    """By the kernel's hub driver, from Linux 6.0 on, which else may switch it on again; False if that cannot be."""
    try:
        fd = os.open(path, os.O_WRONLY)
    except OSError:  # an older kernel, another system, or no rights
        return False
    try:
        os.write(fd, b"1\n" if disabled else b"0\n")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _request(handle: Handle, setup: tuple[int, int, int, int, int], data: bytes | None) -> bytes:
    """A control transfer; what came. Raises Failure."""
    landed = threading.Event()

    slot = handle.slot()
    slot.control(Setup(*setup).pack(), data)
    slot.landed = lambda slot: landed.set()
    slot.submit()
    if not landed.wait(_TIMEOUT):
        slot.cancel()
        if not landed.wait(_PATIENCE):
            raise _Stuck(statuses.ERROR_TIMEOUT)
    if slot.status != statuses.COMPLETED:
        raise Failure(statuses.ERROR_NO_DEVICE if slot.status == statuses.NO_DEVICE else statuses.ERROR_IO)
    received = bytes(slot.buffer[: slot.actual_length])
    handle.recycle(slot)
    return received


def _cannot(port: Port, why: str) -> UsbipError:
    return UsbipError(f"the hub {port.hub_name} cannot switch the power of its port {port.number}: {why}")


_WHY = {
    statuses.ERROR_ACCESS: "this user may not open it: run the server as root, or give the hub to its group by udev",
    statuses.ERROR_NOT_SUPPORTED: "this system does not let programs use hubs",
    statuses.ERROR_NO_DEVICE: "it has just been unplugged",
}
