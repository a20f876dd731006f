"""Who holds a USB device of this machine, and what stands in the way of lending it.

Read from /sys and /proc: no transfers, no rights, and nothing is raised; what may not be read is not known. On systems
without these folders nothing is known.

Ref: Linux Documentation/ABI/testing/sysfs-bus-usb; proc(5), /proc/PID/fd
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from usbip_capture.devices.sysfs import ROOTS, Roots, device_node, driver, folders, interfaces, is_hex, links, text
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo

RULES_FILE = "/etc/udev/rules.d/70-usbip-capture.rules"
#: What usbfs is called as a driver: a program holds the interface, not the kernel.
_USBFS = "usbfs"
#: The driver of every device that is not lent by Linux's usbip-host.
_USB = "usb"
_USBIP_HOST = "usbip-host"
_HUB = 9
#: Linux's driver of devices that are attached over USB/IP.
_VHCI = "vhci_hcd"


@dataclass(slots=True, frozen=True)
class Holder:
    """Who holds an interface. name: a kernel driver, or a program. pid: of the program, 0 of a driver or if unknown."""

    name: str
    pid: int = 0

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})" if self.pid else self.name


#: A program of another user, of which no more can be read.
SOMEBODY = Holder("another program")


@dataclass(slots=True, frozen=True)
class Obstacle:
    """Why a device cannot be lent, and what helps; phrases, without a full stop. rule: of udev, if one helps."""

    reason: str
    remedy: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.remedy}"


def interface_holders(sysfs: str, roots: Roots = ROOTS) -> dict[int, Holder]:
    """bInterfaceNumber -> the kernel driver or the program that has it; free ones are left out.

    sysfs: the folder of the device. One who holds the whole device, as usbip-host does, holds no interface: see
    `device_holder`.
    """
    held: dict[int, Holder] = {}
    programs: list[Holder] | None = None
    for folder in interfaces(sysfs):
        number = text(folder / "bInterfaceNumber")
        name = driver(folder)
        if not name or not is_hex(number):
            continue
        if name == _USBFS:
            if programs is None:
                programs = openers(sysfs, roots)
            # Which of several has this interface, the kernel does not show.
            held[int(number, 16)] = programs[0] if programs else SOMEBODY
        else:
            held[int(number, 16)] = Holder(name)
    return held


def device_holder(sysfs: str) -> Holder | None:
    """The driver that has the whole device in place of the usual one: usbip-host, by which Linux lends it."""
    name = driver(Path(sysfs)) if sysfs else ""
    return Holder(name) if name not in ("", _USB) else None


def openers(sysfs: str, roots: Roots = ROOTS) -> list[Holder]:
    """The programs that have the device open by usbfs, this one last, as far as they may be looked at."""
    node = device_node(sysfs)  # what a link in /proc points to, wherever this process sees it
    found = []
    for process in folders(Path(roots.proc)) if node else ():
        if process.name.isdecimal() and node in links(process / "fd"):
            found.append(Holder(one_line(text(process / "comm")) or "a program", int(process.name)))
    return sorted(found, key=lambda holder: (holder.pid == os.getpid(), holder.pid))


def attached_from_elsewhere(sysfs: str) -> bool:
    """Whether it is a device of another machine, attached here over USB/IP."""
    return bool(sysfs) and _VHCI in os.path.realpath(sysfs)


def obstacle(info: DeviceInfo, sysfs: str, roots: Roots = ROOTS) -> Obstacle | None:
    """Why the device cannot be lent, as far as that can be known without opening it; None: nothing is in the way."""
    if info.bDeviceClass == _HUB:
        return Obstacle("hubs are not lent", "lend what is plugged into it")
    if not sysfs:
        return None
    if attached_from_elsewhere(sysfs):
        return Obstacle("it is attached here over USB/IP", "lend it from the machine that it is plugged into")
    holder = device_holder(sysfs)
    if holder is not None:
        how = f"`usbip unbind -b {info.busid}` ends that" if holder.name == _USBIP_HOST else "unbind that driver"
        return Obstacle(f"the driver {holder} has it", how)
    node = device_node(sysfs, roots)
    if not node:
        return Obstacle("it is not there any more", "plug it in again")
    if not os.path.exists(node):
        return Obstacle(f"there is no {node}", "mount /dev/bus/usb; in a container, pass it with --device")
    if not os.access(node, os.R_OK | os.W_OK):
        return Obstacle(f"no permission to open {node}", remedy(*info.vid_pid, "linux"), udev_rule(*info.vid_pid))
    return None


def udev_rule(idVendor: int, idProduct: int) -> str:
    """The line that lets whoever sits at the machine open such devices. Ref: udev(7), TAG uaccess of systemd"""
    return f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{idVendor:04x}", ATTR{{idProduct}}=="{idProduct:04x}", TAG+="uaccess"'


def remedy(idVendor: int, idProduct: int, platform: str = sys.platform) -> str:
    """What gives the right to open such devices; a phrase that follows a colon. platform: as sys.platform has it."""
    if platform == "darwin":
        return (
            "run it as root, or sign Python with the entitlement com.apple.vm.device-access: macOS lets nobody else "
            "take a device from its driver"
        )
    if platform in ("win32", "cygwin"):
        return "install the driver WinUSB for it with Zadig (https://zadig.akeo.ie), or lend it with usbipd-win"
    return (
        f"write the line {udev_rule(idVendor, idProduct)} into {RULES_FILE}, run `udevadm control --reload` and "
        "`udevadm trigger` as root (who comes by ssh needs GROUP= and MODE= in the line, too); or run it as root"
    )
