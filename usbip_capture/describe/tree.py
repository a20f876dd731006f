"""Devices as a tree of buses and ports, as `lsusb -t` draws it; hubs between are known by their ports only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from usbip_capture.describe.naming import class_name, speed_name
from usbip_capture.usb.info import DeviceInfo


class _Port:
    """What hangs on a port: a device, or more ports, or both."""

    def __init__(self) -> None:
        self.device: DeviceInfo | None = None
        self.ports: dict[int, _Port] = {}


def tree(
    devices: Sequence[DeviceInfo], name: Callable[[DeviceInfo], str], hub_ports: Mapping[str, int] | None = None
) -> list[str]:
    """Lines; busids that name no ports come last, in the order of the list.

    hub_ports: how many ports each hub has, where that is known, by its name: `usb1` for a controller's own, `1-1.4`.
    """
    hub_ports = hub_ports or {}
    buses = {int(hub[3:]): _Port() for hub in hub_ports if hub.startswith("usb") and hub[3:].isdecimal()}
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
        lines += _below(place, f"{bus}-", 1, name, hub_ports)
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


def _below(
    place: _Port, path: str, depth: int, name: Callable[[DeviceInfo], str], hub_ports: Mapping[str, int]
) -> list[str]:
    """path: what its ports' busids begin with."""
    lines = []
    for number, port in sorted(place.ports.items()):
        what = _device(port.device, name) if port.device is not None else "(hub)"
        lines.append(f"{'    ' * depth}|__ Port {number}: {what}")
        if port.device is not None:
            lines += _interfaces(port.device, depth + 1)
        lines += _below(port, f"{path}{number}.", depth + 1, name, hub_ports)
    hub = f"usb{path[:-1]}" if path.endswith("-") else path[:-1]
    empty = [number for number in range(1, hub_ports.get(hub, 0) + 1) if number not in place.ports]
    if empty:
        lines.append(f"{'    ' * depth}|__ Port{'' if len(empty) == 1 else 's'} {_ranges(empty)}: empty")
    return lines


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers, as in `1, 3-5`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{some[0]}-{some[-1]}" if len(some) > 1 else str(some[0]) for some in found)


def _device(info: DeviceInfo, name: Callable[[DeviceInfo], str]) -> str:
    known = " ".join(filter(None, [f"ID {info.idVendor:04x}:{info.idProduct:04x}", name(info)]))
    return f"Dev {info.devnum:03d}, {known}, {speed_name(info.speed)}"


def _interfaces(info: DeviceInfo, depth: int) -> list[str]:
    pad = "    " * depth
    return [f"{pad}|__ If {at}, Class={class_name(i.bInterfaceClass)}" for at, i in enumerate(info.interfaces)]
