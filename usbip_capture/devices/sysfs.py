"""Reads what the kernel shows as files, in /sys and /proc: nothing is raised, what may not be read is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from usbip_capture.system.shown import one_line

_MAX_FILE = 1 << 20
#: Numbers of device files for each bus.
_ADDRESSES = 128


@dataclass(slots=True, frozen=True)
class Roots:
    """Where the system's folders are."""

    sys: str = "/sys"
    proc: str = "/proc"
    dev: str = "/dev"


ROOTS = Roots()


def interfaces(sysfs: str) -> list[Path]:
    """Folders of the interfaces of a device's current configuration: `1-1.4:1.0`. sysfs: the device's, or empty."""
    return [folder for folder in folders(Path(sysfs)) if ":" in folder.name] if sysfs else []


def driver(folder: Path) -> str:
    """The driver that is bound to a device or an interface; empty if none is."""
    try:
        return one_line(os.path.basename(os.readlink(folder / "driver")))
    except OSError:
        return ""


def device_node(sysfs: str, roots: Roots = ROOTS) -> str:
    """The device's file of usbfs; empty if the device is gone."""
    found = address(Path(sysfs)) if sysfs else None
    return "" if found is None else os.path.join(roots.dev, "bus", "usb", f"{found[0]:03}", f"{found[1]:03}")


def address(folder: Path) -> tuple[int, int] | None:
    """Bus number and device address; None if the device is gone.

    While its port is reset Linux has the address 0, but in the number of its file. Ref: Linux drivers/usb/core/hub.c,
    hub_port_reset(), usb_new_device()
    """
    bus, number = text(folder / "busnum"), text(folder / "devnum")
    if not (bus.isdecimal() and number.isdecimal()):
        return None
    if int(number):
        return int(bus), int(number)
    minor = text(folder / "dev").rpartition(":")[2]
    return (int(bus), int(minor) % _ADDRESSES + 1) if minor.isdecimal() else None


def hub_ports(folder: Path) -> dict[str, int]:
    """How many ports each hub has, by its name: `usb1` for a controller's own, `1-1.4`. folder: of USB devices."""
    found = {path.name: text(path / "maxchild") for path in folders(folder) if ":" not in path.name}
    return {name: int(number) for name, number in found.items() if number.isdecimal() and 0 < int(number) < _ADDRESSES}


def names(folder: Path) -> list[str]:
    """What is in a folder, sorted."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, and links to folders."""
    return [folder / name for name in names(folder) if (folder / name).is_dir()]


def links(folder: Path) -> Iterator[str]:
    """Where the links in a folder point to."""
    for name in names(folder):
        try:
            yield os.readlink(folder / name)
        except OSError:  # closed meanwhile
            continue


def text(path: Path) -> str:
    """The text of a file, without blanks at its ends; empty if it cannot be read."""
    return contents(path).decode("utf-8", "replace").strip()


def contents(path: Path) -> bytes:
    """At most a megabyte of a file; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_FILE)
    except OSError:
        return b""


def is_hex(written: str) -> bool:
    """Whether it is a number in hexadecimal."""
    return bool(written) and all(c in "0123456789abcdefABCDEF" for c in written)
