"""What a server of a fleet has answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from usbip_capture.errors import UsbipError
from usbip_capture.fleet.members import Member

#: How a server was asked.
BY_DASHBOARD, BY_USBIP = "dashboard", "usbip"
#: States of a device, as dashboards have them; LISTED: it is in a list of USB/IP, which does not have its client.
FREE, IN_USE, HUB, LISTED = "free", "in use", "hub", "exported"
#: Of what a server sends: devices, characters of a text, and the greatest number.
MAX_DEVICES, MAX_TEXT, MAX_NUMBER = 1024, 256, 1 << 62


@dataclass(slots=True, frozen=True)
class FleetDevice:
    """A device of a server. client: who has it. Rates in bytes a second; what only a dashboard knows is "" or 0."""

    busid: str
    vid_pid: str
    product: str = ""
    serial: str = ""
    state: str = LISTED
    exported: bool = True
    client: str = ""
    rate_in: int = 0
    rate_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    urbs: int = 0
    errors: int = 0

    @property
    def identity(self) -> tuple[str, str]:
        """Where it is plugged in, and what it is."""
        return self.busid, self.vid_pid


@dataclass(slots=True, frozen=True)
class FleetAnswer:
    """way: BY_DASHBOARD, BY_USBIP, or nothing if there is an `error`: why it has not answered.

    problem: why its dashboard has not, where it has one. version, uptime (seconds), clients, rates in bytes a second:
    as its dashboard has them; clients is None where nobody knows.
    """

    member: Member
    way: str = ""
    error: UsbipError | None = None
    problem: UsbipError | None = None
    version: str = ""
    uptime: int = 0
    clients: int | None = None
    rate_in: int = 0
    rate_out: int = 0
    devices: tuple[FleetDevice, ...] = ()

    @property
    def errors(self) -> int:
        """URBs that have failed at all its devices."""
        return sum(device.errors for device in self.devices)


@dataclass(slots=True, frozen=True)
class Totals:
    """Of a whole fleet."""

    servers: int
    answered: int
    devices: int
    in_use: int
    clients: int
    rate_in: int
    rate_out: int
    errors: int

    @classmethod
    def of(cls, answers: Iterable[FleetAnswer]) -> Totals:
        """All these together."""
        given = list(answers)
        devices = [device for answer in given for device in answer.devices]
        return cls(
            len(given), sum(answer.error is None for answer in given), len(devices),
            sum(device.state == IN_USE for device in devices), sum(answer.clients or 0 for answer in given),
            sum(answer.rate_in for answer in given), sum(answer.rate_out for answer in given),
            sum(device.errors for device in devices),
        )  # fmt: skip


def text(entry: Mapping[str, object], key: str) -> str:
    """A text of a stranger's object, not too long; nothing if it has none."""
    value = entry.get(key)
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def number(entry: Mapping[str, object], key: str) -> int:
    """A number of a stranger's object, not negative and not beyond MAX_NUMBER; 0 if it has none."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_NUMBER:
        return 0
    return int(value)


def entries(answer: Mapping[str, object], key: str, most: int = MAX_DEVICES) -> list[Mapping[str, object]]:
    """The objects of a stranger's list, not too many of them."""
    listed = answer.get(key)
    return [entry for entry in (listed if isinstance(listed, list) else [])[:most] if isinstance(entry, dict)]
