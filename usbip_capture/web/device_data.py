"""Devices as the interfaces of the dashboard have them, in JSON's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from usbip_capture.describe.naming import class_name, listed_name
from usbip_capture.describe.tree import ports_of
from usbip_capture.devices.sysfs import driver, interfaces
from usbip_capture.serving.operations import HUB, NO_POWER, Standing
from usbip_capture.syslog.timestamps import format_rfc3339
from usbip_capture.usb.info import DeviceInfo, Speed

if TYPE_CHECKING:
    from usbip_capture.web.side import WebSide

_HUB_CLASS = 9
_PER_INTERFACE = (0x00, 0xEF)
_SPEEDS = {
    Speed.LOW: ("low", "1.5 Mbit/s"),
    Speed.FULL: ("full", "12 Mbit/s"),
    Speed.HIGH: ("high", "480 Mbit/s"),
    Speed.WIRELESS: ("high", "480 Mbit/s"),
    Speed.SUPER: ("super", "5 Gbit/s"),
    Speed.SUPER_PLUS: ("super+", "10 Gbit/s"),
}
_ICONS = {
    0x01: "audio", 0x02: "serial", 0x07: "printer", 0x08: "disk", 0x09: "hub", 0x0E: "video", 0x10: "video",
    0xE0: "network", 0xFF: "vendor",
}  # fmt: skip
_HID, _KEYBOARD, _MOUSE = 0x03, 1, 2
_CDC, _ACM = 0x02, 2


def devices_data(side: WebSide) -> list[dict[str, object]]:
    """All, the hubs above them as well, by their places in the tree."""
    operations = side.server.operations
    ports = dict(operations.hub_ports)
    found = {standing.plugged.info.busid: device_data(side, standing, ports) for standing in operations.devices}
    for busid in operations.ports_off:
        found.setdefault(busid, _without_power(busid))
    for device in list(found.values()):
        parent = str(device["parent"])
        while parent and parent not in found:
            found[parent] = _hub_above(parent, ports)
            parent = parent_of(parent)
    for root in ports:
        if root.startswith("usb"):
            found.setdefault(root, _hub_above(root, ports))
    return [found[busid] for busid in sorted(found, key=_place)]


def device_data(side: WebSide, standing: Standing, ports: Mapping[str, int]) -> dict[str, object]:
    """One of these. ports: how many each hub has."""
    plugged, exported, client = standing.plugged, standing.exported, standing.client
    info = plugged.info
    rate, totals = side.history.latest.devices.get(info.busid, ((0.0, 0.0), None))
    code = _code(info)
    return {
        **_hub(info.busid, ports, is_hub=info.bDeviceClass == _HUB_CLASS),
        "state": standing.state,
        "exported": exported is not None,
        "why": standing.why,
        "rule": str(exported.rule) if exported else "",
        "vid_pid": f"{info.idVendor:04x}:{info.idProduct:04x}",
        "class": f"{code:02x}",
        "class_name": class_name(code) if code or not info.interfaces else "",
        "icon": _icon(info, code),
        "manufacturer": plugged.manufacturer,
        "product": plugged.product or listed_name(info.idVendor, info.idProduct),
        "serial": plugged.serial,
        "speed": _SPEEDS.get(info.speed, ("", ""))[0],
        "speed_name": _SPEEDS.get(info.speed, ("", "unknown speed"))[1],
        "drivers": sorted({name for folder in interfaces(plugged.sysfs) if (name := driver(folder))}),
        "client": str(client.peer) if client else "",
        "since": client.imported if client else None,
        "lease": _lease(side, info.busid),
        "bytes_in": totals.bytes_in if totals else 0,
        "bytes_out": totals.bytes_out if totals else 0,
        "urbs": totals.urbs if totals else 0,
        "errors": totals.errors if totals else 0,
        "rate_in": round(rate[0]),
        "rate_out": round(rate[1]),
    }


def parent_of(busid: str) -> str:
    """The hub that it is plugged into: `1-1` of 1-1.4, `usb1` of 1-1; empty of a controller's own hub."""
    path = ports_of(busid)
    if path is None or len(path) < 2:
        return ""
    return busid.rpartition(".")[0] if len(path) > 2 else f"usb{path[0]}"


def _hub_above(busid: str, ports: Mapping[str, int]) -> dict[str, object]:
    """One that libusb does not list: a controller's own, or where only what is behind it is known."""
    product = f"Bus {busid[3:]}" if busid.startswith("usb") else ""
    name = class_name(_HUB_CLASS)
    return {**_unknown(busid, HUB, ports), "class": "09", "class_name": name, "icon": "hub", "product": product}


def _without_power(busid: str) -> dict[str, object]:
    """A port that was switched off: what is plugged in there cannot be seen."""
    why = "the power of its port is switched off: switch it on"
    return {**_unknown(busid, NO_POWER), "product": f"Port {busid}", "why": why}


def _unknown(busid: str, state: str, ports: Mapping[str, int] | None = None) -> dict[str, object]:
    """All fields of a device of which only the place is known. ports: of a hub."""
    texts = ("why", "rule", "vid_pid", "class", "class_name", "manufacturer", "product", "serial", "speed",
             "speed_name", "client", "lease")  # fmt: skip
    numbers = dict.fromkeys(("bytes_in", "bytes_out", "urbs", "errors", "rate_in", "rate_out"), 0)
    return {
        **dict.fromkeys(texts, ""), **numbers, **_hub(busid, ports or {}, is_hub=ports is not None),
        "state": state, "exported": False, "icon": "other", "drivers": [], "since": None,
    }  # fmt: skip


def _hub(busid: str, ports: Mapping[str, int], *, is_hub: bool) -> dict[str, object]:
    path = ports_of(busid)
    return {
        "busid": busid,
        "parent": parent_of(busid),
        "port": path[-1] if path and len(path) > 1 else 0,
        "ports": ports.get(busid, 0) if is_hub else 0,
        "hub": is_hub,
        "root": busid.startswith("usb"),
    }


def _place(busid: str) -> tuple[object, ...]:
    """Where it stands in the tree, those above first; busids that are no paths come last."""
    if busid.startswith("usb") and busid[3:].isdecimal():
        return (0, int(busid[3:]))
    path = ports_of(busid)
    return (0, *path) if path else (1, busid)


def _code(info: DeviceInfo) -> int:
    """Its class, or that of its first interface."""
    if info.bDeviceClass in _PER_INTERFACE and info.interfaces:
        return info.interfaces[0].bInterfaceClass
    return info.bDeviceClass


def _icon(info: DeviceInfo, code: int) -> str:
    if code == _HID:
        protocol = info.interfaces[0].bInterfaceProtocol if info.interfaces else 0
        return {_KEYBOARD: "keyboard", _MOUSE: "mouse"}.get(protocol, "other")
    if code == _CDC and info.interfaces and info.interfaces[0].bInterfaceSubClass != _ACM:
        return "network"  # Ethernet and its like
    return _ICONS.get(code, "other")


def _lease(side: WebSide, busid: str) -> str:
    """As a phrase: for whom it is reserved now, and until when; empty if it is not."""
    turn = next((turn for turn in side.server.leases.turns(busid) if turn.begins <= side.history.latest.time), None)
    return f"for {turn.holder} until {format_rfc3339(turn.until)}" if turn is not None else ""
