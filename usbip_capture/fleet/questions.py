"""The questions to one server of a fleet: to its dashboard, and to its port of USB/IP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from usbip_capture.describe.naming import listed_name
from usbip_capture.errors import ServerUnreachable
from usbip_capture.fleet.answers import (
    BY_DASHBOARD,
    BY_USBIP,
    HUB,
    LISTED,
    MAX_DEVICES,
    FleetAnswer,
    FleetDevice,
    entries,
    number,
    text,
)
from usbip_capture.fleet.members import Member
from usbip_capture.net.address import SSH
from usbip_capture.server_stream.requests import DashboardConnection
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.servers.known import KnownDevice
from usbip_capture.usb.info import DeviceInfo

#: Seconds that ssh may take to log in, besides those for connecting.
_LOGGING_IN = 10.0


def allowed(place: Dashboard | ServerAddress) -> float:
    """Seconds for connecting and for all answers."""
    return 2 * place.timeout + (_LOGGING_IN if place.scheme == SSH else 0.0)


@contextmanager
def connected(dashboard: Dashboard) -> Iterator[DashboardConnection]:
    """A connection to it, and all that is asked there within `allowed`. Raises UsbipError."""
    until = time.monotonic() + allowed(dashboard)

    def check() -> None:
        if time.monotonic() > until:
            raise ServerUnreachable(f"{dashboard} has not finished its answer within {allowed(dashboard):g} s")

    connection = DashboardConnection(dashboard, check)
    try:
        yield connection
    finally:
        connection.close()


def ask_dashboard(member: Member, dashboard: Dashboard) -> FleetAnswer:
    """What the dashboard answers. Raises UsbipError."""
    with connected(dashboard) as connection:
        overview = connection.ask("GET", "/overview")
        listed = connection.ask("GET", "/devices")
    passing = overview.get("throughput")
    passing = passing if isinstance(passing, dict) else {}
    return FleetAnswer(
        member,
        BY_DASHBOARD,
        version=text(overview, "version"),
        uptime=number(overview, "uptime"),
        clients=number(overview, "clients"),
        rate_in=number(passing, "in"),
        rate_out=number(passing, "out"),
        devices=tuple(_shown(entry) for entry in entries(listed, "devices") if not _is_hub(entry)),
    )


def ask_server(
    member: Member, server: ServerAddress, known: Mapping[tuple[str, int], list[KnownDevice]]
) -> FleetAnswer:
    """What its port of USB/IP answers. known: devices by place, as they were read before. Raises UsbipError."""
    names = {(device.busid, device.vid_pid): device for device in known.get(server.place, [])}
    devices = tuple(_listed(info, names) for info in server.devices()[:MAX_DEVICES])
    return FleetAnswer(member, BY_USBIP, devices=devices)


def _is_hub(entry: Mapping[str, object]) -> bool:
    return entry.get("hub") is True or entry.get("state") == HUB


def _shown(entry: Mapping[str, object]) -> FleetDevice:
    return FleetDevice(
        busid=text(entry, "busid"),
        vid_pid=text(entry, "vid_pid"),
        product=text(entry, "product"),
        serial=text(entry, "serial"),
        state=text(entry, "state") or LISTED,
        exported=entry.get("exported") is True,
        client=text(entry, "client"),
        rate_in=number(entry, "rate_in"),
        rate_out=number(entry, "rate_out"),
        bytes_in=number(entry, "bytes_in"),
        bytes_out=number(entry, "bytes_out"),
        urbs=number(entry, "urbs"),
        errors=number(entry, "errors"),
    )


def _listed(info: DeviceInfo, names: Mapping[tuple[str, str], KnownDevice]) -> FleetDevice:
    vid_pid = "{:04x}:{:04x}".format(*info.vid_pid)
    device = names.get((info.busid, vid_pid))
    product, serial = (device.name, device.serial) if device is not None else ("", "")
    return FleetDevice(info.busid, vid_pid, product or listed_name(*info.vid_pid), serial)
