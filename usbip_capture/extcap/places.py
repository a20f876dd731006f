"""What is captured at a place of labgrid: its device, if we have the place, or what its holder does with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.net.address import parse_dashboard
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.configuration import required_coordinator
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.servers.known_places import PLACE_PREFIX
from usbip_capture.system.shown import one_line, shell_word

if TYPE_CHECKING:
    from usbip_capture.coordinator.places import LabDevice, LabPlace
    from usbip_capture.servers.known_places import KnownPlace


@dataclass(slots=True, frozen=True)
class PlaceTarget:
    """server: where the device is. busid: which one it is. dashboard: of the server, to join what is done there; None
    where the device is ours."""

    server: ServerAddress
    busid: str
    dashboard: Dashboard | None = None


def place_target(known: KnownPlace, token: str = "", *, joins: bool = False) -> PlaceTarget:
    """Where to capture, as labgrid's coordinator has it now. joins: also where we have the place. Raises UsbipError."""
    where = required_coordinator()
    from usbip_capture.coordinator.asking import asked

    places = {place.name: place for place in asked(where).places}
    place = places.get(known.place)
    if place is None:
        there = f"it has {', '.join(map(one_line, places))}" if places else "it has none"
        raise DeviceNotFound(
            f"labgrid's coordinator at {one_line(where)} has no place {one_line(known.place)} with a USB/IP device: "
            f"{there}"
        )
    device = _device_of(place, known.device)
    _check_held(place)
    server = _server_of(place, device)
    if place.is_ours and not joins:
        return PlaceTarget(server, device.busid)
    try:
        return PlaceTarget(server, device.busid, _dashboard_of(device, token))
    except UsbipError as error:
        if place.is_ours:
            raise
        raise UsbipError(f"{_held_by(place)}; to join what happens there: {error}") from error


def _device_of(place: LabPlace, name: str) -> LabDevice:
    if not name and len(place.devices) == 1:
        return place.devices[0]
    found = [device for device in place.devices if device.name == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one_line(device.name) for device in place.devices)
    own = one_line(place.name)
    raise DeviceNotFound(f"place {own} has {names}: name one of its devices, as in '{PLACE_PREFIX}{own}, NAME'")


def _check_held(place: LabPlace) -> None:
    """A device is used by who has its place. Raises UsbipError."""
    if not place.holder:
        name = one_line(place.name)
        raise UsbipError(
            f"place {name} is nobody's now: acquire it (labgrid-client -p {shell_word(name)} acquire), and start the "
            "capture again"
        )


def _held_by(place: LabPlace) -> str:
    return f"place {one_line(place.name)} is held by {one_line(place.holder)}"


def _server_of(place: LabPlace, device: LabDevice) -> ServerAddress:
    if device.port is None:
        raise UsbipError(
            f"{_held_by(place)}, but its device {one_line(device.busid)} is not lent: is it plugged in, and does its "
            "exporter run?"
        )
    return ServerAddress.parse(device.server_host, device.port)


def _dashboard_of(device: LabDevice, token: str) -> Dashboard:
    """By a token that is given, or configured for its address: anybody may write into a coordinator."""
    if device.dashboard:
        return Dashboard.at(*parse_dashboard(device.dashboard), token=token)
    return Dashboard.of_server(device.server_host, token)
