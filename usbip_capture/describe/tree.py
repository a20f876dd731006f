"""Devices as a tree of buses and ports, as `lsusb -t` draws it; hubs between are known by their ports only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from usbip_capture.describe.naming import class_name, speed_name
from usbip_capture.usb.info import DeviceInfo


class _Port:
    """What hangs on a port: a device, or more ports, or both."""

    def __init__(self) -> None:
        self.device: DeviceInfo | None = None
        self.ports: dict[int, _Port] = {}


def tree(devices: Sequence[DeviceInfo], name: Callable[[DeviceInfo], str]) -> list[str]:
    """Lines; busids that name no ports come last, in the order of the list."""
    buses: dict[int, _Port] = {}
    others = []
    for info in devices:
        path = ports_of(info.busid)
        if path is None:
            others.append(info)
            continue
        place = buses.setdefault(path[0], _Port())
        for port in path[1:]:
            place = place.ports.setdefault(port, _Port())
        place.device = info
    lines = []
    for bus, place in sorted(buses.items()):
        lines.append(f"/:  Bus {bus:03d}")
        lines += _below(place, 1, name)
    for info in others:
        lines += [f"/:  {info.busid}: {_device(info, name)}", *_interfaces(info, 1)]
    return lines


def ports_of(busid: str) -> list[int] | None:
    """Bus and ports of `1-1.2`: 1, 1, 2; None if it is not such a path."""
    bus, dash, path = busid.partition("-")
    parts = [bus, *path.split(".")]
    if not dash or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        return None
    return [int(part) for part in parts]


def _below(place: _Port, depth: int, name: Callable[[DeviceInfo], str]) -> list[str]:
    lines = []
    for number, port in sorted(place.ports.items()):
        what = _device(port.device, name) if port.device is not None else "(hub)"
        lines.append(f"{'    ' * depth}|__ Port {number}: {what}")
        if port.device is not None:
            lines += _interfaces(port.device, depth + 1)
        lines += _below(port, depth + 1, name)
    return lines


def _device(info: DeviceInfo, name: Callable[[DeviceInfo], str]) -> str:
    known = " ".join(filter(None, [f"ID {info.idVendor:04x}:{info.idProduct:04x}", name(info)]))
    return f"Dev {info.devnum:03d}, {known}, {speed_name(info.speed)}"


def _interfaces(info: DeviceInfo, depth: int) -> list[str]:
    pad = "    " * depth
    return [f"{pad}|__ If {at}, Class={class_name(i.bInterfaceClass)}" for at, i in enumerate(info.interfaces)]
