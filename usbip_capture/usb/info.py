"""What a USB/IP server reports of a device before it is imported.

Ref: Linux Documentation/usb/usbip_protocol.rst, OP_REP_DEVLIST and OP_REP_IMPORT
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum


class Speed(IntEnum):
    """Ref: Linux include/uapi/linux/usb/ch9.h, enum usb_device_speed."""

    UNKNOWN = 0
    LOW = 1
    FULL = 2
    HIGH = 3
    WIRELESS = 4
    SUPER = 5
    SUPER_PLUS = 6

    @property
    def bits_per_second(self) -> int:
        """Signalling rate, 0 when unknown."""
        return _BITS_PER_SECOND[self]


_BITS_PER_SECOND = {
    Speed.UNKNOWN: 0,
    Speed.LOW: 1_500_000,
    Speed.FULL: 12_000_000,
    Speed.HIGH: 480_000_000,
    Speed.WIRELESS: 480_000_000,
    Speed.SUPER: 5_000_000_000,
    Speed.SUPER_PLUS: 10_000_000_000,
}


@dataclass(slots=True, frozen=True)
class InterfaceInfo:
    """Class codes of one interface of the active configuration."""

    bInterfaceClass: int
    bInterfaceSubClass: int
    bInterfaceProtocol: int


@dataclass(slots=True, frozen=True)
class DeviceInfo:
    """One exported device. `interfaces` is empty while the device is unconfigured, and in import replies."""

    busid: str
    busnum: int
    devnum: int
    speed: Speed
    idVendor: int
    idProduct: int
    bcdDevice: int = 0
    bDeviceClass: int = 0
    bDeviceSubClass: int = 0
    bDeviceProtocol: int = 0
    bConfigurationValue: int = 0
    bNumConfigurations: int = 1
    bNumInterfaces: int = 0
    path: str = ""
    interfaces: tuple[InterfaceInfo, ...] = ()

    @property
    def devid(self) -> int:
        """Device identifier in the header of each PDU."""
        return (self.busnum << 16 | self.devnum) & 0xFFFFFFFF

    @property
    def vid_pid(self) -> tuple[int, int]:
        """idVendor and idProduct."""
        return self.idVendor, self.idProduct

    def __str__(self) -> str:
        return f"{self.busid} ({self.idVendor:04x}:{self.idProduct:04x})"


def busid_order(busid: str) -> list[tuple[int, int, str]]:
    """For sorting: as the ports are, 1-1.2 before 1-1.10."""
    return [
        (1, 0, part) if part[0] not in "0123456789" else (0, int(part), "")
        for part in re.findall(r"[0-9]+|[^0-9]+", busid)
    ]
