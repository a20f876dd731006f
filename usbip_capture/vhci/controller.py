"""Linux's vhci-hcd through sysfs: its ports, and the two files that attach and detach.

Ref: Linux drivers/usb/usbip/vhci_sysfs.c. The first controller's folder has the files of all of them: `status`,
`status.1` and so on, `attach` and `detach` with port numbers that count through
"""

from __future__ import annotations

import errno
import os
import re
import sys

from usbip_capture.errors import CannotAttach, NoVhci
from usbip_capture.usb.info import Speed
from usbip_capture.vhci.ports import SUPER_SPEED, Port, hub_of, parse_status

SYSFS = "/sys"
#: Before 4.9 there was one controller, without a number.
_FOLDERS = ("vhci_hcd.0", "vhci_hcd")
_STATUS = re.compile(r"status(\.\d+)?")
#: Attempts, when others attach at the same time and take the port that was free.
_ATTEMPTS = 16
#: What is written of a device that is faster than what vhci-hcd's hubs are.
_FASTEST = Speed.SUPER


class Vhci:
    """The virtual host controllers of this machine. sysfs: where it is mounted; platform: as `sys.platform`."""

    def __init__(self, sysfs: str = SYSFS, platform: str = sys.platform) -> None:
        if not platform.startswith("linux"):
            raise NoVhci(
                "attaching needs Linux's vhci-hcd, which this system does not have: on Windows usbip-win2 attaches, and"
                " on every system the commands of usbip-capture, PyUSB and pyserial use the device without attaching it"
            )
        self._devices = os.path.join(sysfs, "bus/usb/devices")
        folders = [os.path.join(sysfs, "devices/platform", name) for name in _FOLDERS]
        found = next((folder for folder in folders if os.path.exists(os.path.join(folder, "attach"))), None)
        if found is None:
            raise NoVhci("the kernel module vhci-hcd is not loaded: run sudo modprobe vhci-hcd, then try again")
        self._folder = found

    def check_rights(self) -> None:
        """Raises NoVhci if this user may not attach: asked before a device is imported for nothing."""
        if not os.access(os.path.join(self._folder, "attach"), os.W_OK):
            raise NoVhci("attaching and detaching need root's rights: run it with sudo")

    def ports(self) -> list[Port]:
        """All ports, of all controllers, by their numbers. Raises NoVhci."""
        names = [name for name in os.listdir(self._folder) if _STATUS.fullmatch(name)]
        found = [port for name in names for port in parse_status(self._read(name))]
        return sorted(found, key=lambda port: port.number)

    def port(self, number: int) -> Port | None:
        """One port, as it is now. Raises NoVhci."""
        return next((port for port in self.ports() if port.number == number), None)

    def attach(self, fileno: int, devid: int, speed: Speed) -> int:
        """Connect a device to a free port, whose number is returned; the kernel has the socket from then on.

        fileno: of the connected socket, on which nothing but URBs follows. Raises CannotAttach, NoVhci.
        """
        hub = hub_of(speed)
        refused: set[int] = set()
        for _ in range(_ATTEMPTS):
            free = [p.number for p in self.ports() if p.free and p.hub == hub and p.number not in refused]
            if not free:
                break
            try:
                self._write("attach", f"{free[0]} {fileno} {devid} {min(speed, _FASTEST):d}")
            except OSError as error:
                # Old kernels return EINVAL for a port that is in use, and all of them for what they do not accept.
                if error.errno == errno.EBUSY or (error.errno == errno.EINVAL and self._is_taken(free[0])):
                    refused.add(free[0])
                    continue
                raise CannotAttach(f"the kernel refuses the device: {error.strerror}: see its log (dmesg)") from error
            return free[0]
        kind = "SuperSpeed" if hub == SUPER_SPEED else "high speed"
        raise CannotAttach(f"no port of vhci-hcd for {kind} is free: detach a device (usbip-capture attached)")

    def detach(self, number: int) -> None:
        """Disconnect a port's device, which the kernel then removes. Raises CannotAttach if nothing is there."""
        try:
            self._write("detach", str(number))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise CannotAttach(f"port {number} cannot be detached: {error.strerror}") from error
            raise CannotAttach(f"nothing is attached at port {number}: usbip-capture attached lists what is") from error

    def is_enumerated(self, port: Port) -> bool:
        """Whether its device is one of this machine: it has a busid before, while the kernel still reads it."""
        return bool(port.local_busid) and os.path.exists(os.path.join(self._devices, port.local_busid))

    def attribute(self, local_busid: str, name: str) -> str:
        """What the kernel knows of an attached device, such as `product`; empty if it does not."""
        try:
            with open(os.path.join(self._devices, local_busid, name), "rb") as file:
                return file.read().decode("utf-8", "replace").rstrip("\n")
        except OSError:
            return ""

    def _is_taken(self, number: int) -> bool:
        port = self.port(number)
        return port is not None and not port.free

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._folder, name), encoding="ascii", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise NoVhci(f"the ports of vhci-hcd cannot be read: {error.strerror}") from error

    def _write(self, name: str, text: str) -> None:
        """In one call, as sysfs wants it. Raises OSError, NoVhci without the right to do so."""
        try:
            fd = os.open(os.path.join(self._folder, name), os.O_WRONLY)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise NoVhci("attaching and detaching need root's rights: run it with sudo") from error
            raise NoVhci(f"vhci-hcd cannot be used: {error.strerror}: is /sys writable here?") from error
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)
