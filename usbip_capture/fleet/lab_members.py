"""The servers of labgrid's places and other resources, as its coordinator has them now."""

from __future__ import annotations

from collections.abc import Iterator

from usbip_capture.coordinator.places import Lab, LabDevice
from usbip_capture.errors import UsbipError
from usbip_capture.fleet.members import Member
from usbip_capture.net.address import DEFAULT_PORT, parse_dashboard
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.dashboards import Dashboard


def lab_members(lab: Lab, timeout: float = 5.0) -> tuple[list[Member], int]:
    """Those that are lent, each server once, by the names of their places; and how many devices are lent to nobody.

    timeout: seconds for connecting, and for answers.
    """
    members: dict[str, Member] = {}
    idle = 0
    for name, device in _devices(lab):
        if device.port is None:
            idle += 1
            continue
        member = _member(name, device, timeout)
        members.setdefault(member.address.lower(), member)
    return list(members.values()), idle


def _devices(lab: Lab) -> Iterator[tuple[str, LabDevice]]:
    """What each is called, and the device."""
    for place in lab.places:
        for device in place.devices:
            yield place.label(device), device
    for device in lab.others:
        exporter, group, *_ = device.path.split("/")
        yield f"{exporter}/{group}", device


def _member(name: str, device: LabDevice, timeout: float) -> Member:
    """A server of a port of its own is the place's; its dashboard is asked by a token that is known for its address."""
    port = device.port or DEFAULT_PORT
    try:
        server = ServerAddress.parse(device.server_host, port, timeout)
    except UsbipError as error:
        return Member(name, problem=error, place=device.path)
    dashboard = None
    if device.dashboard:
        try:
            dashboard = Dashboard.at(*parse_dashboard(device.dashboard), timeout=timeout)
        except UsbipError:  # no token for it, or not an address
            pass
    return Member(name, server, dashboard, place=device.path if port != DEFAULT_PORT else "")
