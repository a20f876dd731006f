"""Places of a coordinator, and the devices of a USB/IP server that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class LabDevice:
    """A resource `NetworkUsbipDevice`.

    path: EXPORTER/GROUP/CLASS/NAME. name: what its place calls it. host: as hosts are written everywhere. port: None
    while it is lent to nobody. proxy: the machine that labgrid reaches it by with ssh, empty if it needs none.
    dashboard: of its server, as `parse_dashboard` takes it; empty if it has none. device: what it is, for people.
    """

    path: str
    name: str
    host: str
    port: int | None = None
    busid: str = ""
    proxy: str = ""
    dashboard: str = ""
    device: str = ""

    @property
    def server_host(self) -> str:
        """The host of its server, as hosts are written everywhere: by ssh where labgrid's proxy is needed."""
        return f"ssh://{self.proxy}" if self.proxy and "://" not in self.host else self.host

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> LabDevice:
        """Of what a coordinator has, into which anybody may write. Raises ValueError."""
        port = given.get("port")
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
            raise ValueError(f"port {port!r}")
        texts = {
            key: str(given.get(key) or "") for key in ("path", "name", "host", "busid", "proxy", "dashboard", "device")
        }
        if not texts["host"]:
            raise ValueError("no host")
        return cls(port=port, **texts)


@dataclass(slots=True, frozen=True)
class LabPlace:
    """A place with such devices.

    holder: who has acquired it, as labgrid writes that: HOST/USER; empty if nobody has. is_ours: we have acquired it,
    or its holder allows us to use it.
    """

    name: str
    holder: str
    is_ours: bool
    devices: tuple[LabDevice, ...]

    def label(self, device: LabDevice) -> str:
        """What one of its devices is called where each is listed."""
        return self.name if len(self.devices) == 1 else f"{self.name}, {device.name}"


@dataclass(slots=True, frozen=True)
class Lab:
    """What a coordinator has: places that have devices, by name; devices that belong to no place."""

    places: tuple[LabPlace, ...]
    others: tuple[LabDevice, ...] = ()

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Lab:
        """Of what `answering` has printed; devices that cannot be meant are left out. Raises KeyError, TypeError."""
        places = []
        for given in answer["places"]:
            devices = _devices(given["devices"])
            if devices:
                places.append(LabPlace(given["name"], given["holder"], given["is_ours"], devices))
        return cls(tuple(sorted(places, key=lambda place: place.name)), _devices(answer["others"]))


def _devices(entries: list[Mapping[str, Any]]) -> tuple[LabDevice, ...]:
    found = []
    for entry in entries:
        try:
            found.append(LabDevice.parse(entry))
        except ValueError:
            continue
    return tuple(sorted(found, key=lambda device: (device.name, device.path)))
