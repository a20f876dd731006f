"""Which places of labgrid are known, from the cache: read only, no network, as `known` has servers.

Fields are separated by tabs: `coordinator`, its address; `place`, its name, the device's name there, and the label.
"""

from __future__ import annotations

import os

from usbip_capture.servers.configuration import coordinator
from usbip_capture.servers.known import MAX_LISTED, KnownServer, all_known, preference, read_lines, unique_interface
from usbip_capture.system.folders import cache_folder

PLACES_FILE = "places"
#: Devices of places that are remembered.
MAX_PLACES = MAX_LISTED
#: What a place is named after where a host is typed: `place:rpi4-bench`.
PLACE_PREFIX = "place:"


class KnownPlace:
    """A device of a place. device: what the place calls it. interface: the name of its Wireshark interface.

    label: the place, and the device where that has several.
    """

    __slots__ = ("device", "interface", "label", "place")

    def __init__(self, place: str, device: str = "", label: str = "") -> None:
        self.place = place
        self.device = device
        self.label = label or place
        self.interface = ""

    @property
    def display(self) -> str:
        """As Wireshark lists it."""
        return f"USB/IP place: {self.label}"


def known_places(servers: list[KnownServer] | None = None) -> list[KnownPlace]:
    """Those of the coordinator that is configured, as it last had them; none if the cache is of another one.

    servers: `all_known`, where that was asked for anyway.
    """
    found: list[KnownPlace] = []
    lines = read_lines(os.path.join(cache_folder(), PLACES_FILE))
    if not lines or lines[0].split("\t") != ["coordinator", coordinator()]:
        return []
    for line in lines[1:]:
        fields = line.split("\t")
        if len(fields) == 4 and fields[0] == "place" and all(fields):
            found.append(KnownPlace(*fields[1:]))
            if len(found) == MAX_PLACES:
                break
    taken = {preference(server.interface) for server in servers or all_known()} if found else set()
    for place in found:
        place.interface = unique_interface(f"place-{place.label}", f"{place.place}/{place.device}", taken)
    return found


def find_place(interface: str) -> KnownPlace | None:
    """The one behind a Wireshark interface."""
    return next((place for place in known_places() if place.interface == interface), None) if coordinator() else None


def typed_place(host: str) -> KnownPlace | None:
    """The one that a person names in the place of a host: `place:NAME`, or `place:NAME, DEVICE`."""
    if not host.strip().startswith(PLACE_PREFIX):
        return None
    name, _, device = host.strip().removeprefix(PLACE_PREFIX).partition(",")
    return KnownPlace(name.strip(), device.strip())
