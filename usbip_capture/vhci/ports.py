"""The ports of vhci-hcd, as its `status` files list them. Pure.

Ref: Linux drivers/usb/usbip/vhci_sysfs.c, status_show_vhci(): since 4.13 a row begins with its hub, hs or ss; earlier
ones have no such column, and only ports of high speed
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from usbip_capture.errors import NoVhci
from usbip_capture.usb.info import Speed

HIGH_SPEED, SUPER_SPEED = "hs", "ss"
_NO_DEVICE = "0-0"


class PortStatus(IntEnum):
    """Ref: Linux drivers/usb/usbip/usbip_common.h, enum usbip_device_status."""

    FREE = 4
    #: Attached, and not enumerated yet.
    NOT_ASSIGNED = 5
    USED = 6
    ERROR = 7


@dataclass(slots=True, frozen=True)
class Port:
    """One port. hub: which of its controller's two it belongs to. devid: the server's. local_busid: once addressed."""

    number: int
    hub: str
    status: int
    speed: Speed = Speed.UNKNOWN
    devid: int = 0
    local_busid: str = ""

    @property
    def free(self) -> bool:
        """Whether a device can be attached here."""
        return self.status == PortStatus.FREE


def parse_status(text: str) -> list[Port]:
    """The rows of a `status` file, in either form. Raises NoVhci for one that cannot be understood."""
    return [_port(row) for row in text.splitlines()[1:] if row.strip()]


def hub_of(speed: Speed) -> str:
    """The hub that a device of this speed needs."""
    return SUPER_SPEED if speed >= Speed.SUPER else HIGH_SPEED


def _port(row: str) -> Port:
    fields = row.split()
    hub = fields.pop(0) if fields[0] in (HIGH_SPEED, SUPER_SPEED) else HIGH_SPEED
    try:
        number, status = int(fields[0]), int(fields[1])
        if status in (PortStatus.FREE, PortStatus.NOT_ASSIGNED):  # the rest means nothing, and once had a column more
            return Port(number, hub, status)
        local = "" if fields[-1] == _NO_DEVICE else fields[-1]
        return Port(number, hub, status, Speed(int(fields[2])), int(fields[3], 16), local)
    except (IndexError, ValueError):
        raise NoVhci(f"the kernel's list of attached devices cannot be read: {row!r} is not a port") from None
