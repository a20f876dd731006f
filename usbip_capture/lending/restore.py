"""Kernel drivers that are unbound while their devices are lent, remembered for the case that this process is killed.

Each process has files of its own in the state folder, replaced as a whole before a driver is unbound.
Whoever starts next binds what a killed one has left, if it is still the same device at the same address, and keeps what
it cannot bind for who can.

Ref: Linux Documentation/driver-api/usb/usb.rst (usbfs); include/uapi/linux/usbdevice_fs.h
"""

from __future__ import annotations

import errno
import json
import logging
import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from usbip_capture.devices.sysfs import ROOTS, Roots, address, device_node, driver, interfaces, is_hex, text
from usbip_capture.system.folders import state_folder
from usbip_capture.system.replacement import Replacement
from usbip_capture.system.shown import one_line

log = logging.getLogger(__name__)

_FOLDER = "unbound-drivers"
_SUFFIX = ".json"
#: What, with its address, distinguishes a device from another one that is plugged in at its place.
_IDENTITY = ("idVendor", "idProduct", "serial")
_MAX_FILES, _MAX_SIZE = 1000, 1 << 20
#: What another attempt does not change: the device is gone, or the interface has a driver.
_NEVER = (errno.ENODEV, errno.ENOENT, errno.EBUSY)
_numbers = count()
#: What usbfs is called as a driver: another program has the interface.
_USBFS = "usbfs"
# Ref: usbdevice_fs.h: USBDEVFS_IOCTL, _IOWR('U', 18, struct usbdevfs_ioctl); USBDEVFS_CONNECT, _IO('U', 23)
_IOCTL = struct.Struct("iiP")
_USBDEVFS_IOCTL = 0xC0005512 | _IOCTL.size << 16
_USBDEVFS_CONNECT = 0x5517


def folder() -> Path:
    """Where the files lie."""
    return Path(state_folder(), _FOLDER)


class _Record(NamedTuple):
    """identity: of the device. drivers: by interface number."""

    identity: dict[str, str]
    drivers: dict[str, str]


class UnboundDrivers:
    """A file of this process. Its methods may be called from any thread, and do not raise."""

    def __init__(self, roots: Roots = ROOTS) -> None:
        self._roots = roots
        self._path = _unused()
        self._lock = threading.Lock()
        self._devices: dict[str, _Record] = {}

    def unbinding(self, sysfs: str) -> None:
        """The drivers of this device are about to be unbound."""
        drivers = {str(_number(path)): name for path in interfaces(sysfs) if (name := driver(path)) not in ("", _USBFS)}
        if not drivers:
            return
        identity = _identity(sysfs)
        with self._lock:
            known = self._devices.get(sysfs, _Record(identity, {}))
            if known.identity == identity:  # those of an earlier configuration, too
                drivers = {**known.drivers, **drivers}
            self._devices[sysfs] = _Record(identity, drivers)
            self._write()

    def bound(self, sysfs: str, devnum: int) -> None:
        """Those of the device at this address are bound again; there may be another one in its folder meanwhile."""
        with self._lock:
            known = self._devices.get(sysfs)
            if known is not None and known.identity.get("devnum") == str(devnum):
                del self._devices[sysfs]
                self._write()

    def _write(self) -> None:
        try:
            if not self._devices:
                self._path.unlink(missing_ok=True)
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with Replacement(self._path) as file:
                process = _started(os.getpid(), self._roots)
                devices = {sysfs: record._asdict() for sysfs, record in self._devices.items()}
                file.write(json.dumps({"started": process, "devices": devices}).encode())
        except OSError as error:
            log.warning("which drivers are unbound cannot be remembered: %s: %s", self._path, error.strerror or error)


class Restored(NamedTuple):
    """bound: what has its driver again, as sentences. left: what has not, each with why; a next call tries again."""

    bound: list[str]
    left: list[str]

    @property
    def complaint(self) -> str:
        """A sentence about what is left; empty if nothing is."""
        if not self.left:
            return ""
        what = "; ".join(self.left)
        return f"still without a driver: {what}: let who may bind it run `serve --restore`, or plug it in again"


def restore(roots: Roots = ROOTS, bind: Callable[[str, int], None] | None = None) -> Restored:
    """Bind the drivers that killed processes have left unbound. Does not raise.

    bind: called with the device's file of usbfs and the number of an interface; raises OSError.
    """
    done = Restored([], [])
    with suppress(OSError):
        for path in sorted(folder().glob(f"*{_SUFFIX}"))[:_MAX_FILES]:
            try:
                record = _left(path, roots)
                if record is None:
                    continue
                started, devices = record
                kept = {
                    sysfs: _restored(sysfs, device, roots, bind or _bind, done) for sysfs, device in devices.items()
                }
                _keep(path, started, {sysfs: device for sysfs, device in kept.items() if device is not None})
            except OSError as error:
                done.left.append(f"what {path} has: {error.strerror or error}")
    return done


def _unused() -> Path:
    """A file of this process; there may be one of an earlier process of the same number, which could not be ended."""
    while (path := folder() / f"{os.getpid()}-{next(_numbers)}{_SUFFIX}").exists():
        pass
    return path


def _keep(path: Path, started: str, devices: dict[str, _Record]) -> None:
    """Only this of a file. Raises OSError."""
    if not devices:
        path.unlink(missing_ok=True)
        return
    with Replacement(path) as file:
        kept = {sysfs: record._asdict() for sysfs, record in devices.items()}
        file.write(json.dumps({"started": started, "devices": kept}).encode())


def _number(interface: Path) -> int:
    written = text(interface / "bInterfaceNumber")
    return int(written, 16) if is_hex(written) else -1


def _restored(
    sysfs: str, device: object, roots: Roots, bind: Callable[[str, int], None], done: Restored
) -> _Record | None:
    """Bind what is still unbound of one device, unless it is another one meanwhile; what is to be tried again."""
    if not isinstance(device, dict) or device.get("identity") != _identity(sysfs):
        return None
    drivers, node = device.get("drivers"), device_node(sysfs, roots)
    if not isinstance(drivers, dict) or not node:
        return None
    kept = {}
    for path in interfaces(sysfs):
        number = _number(path)
        name = drivers.get(str(number))
        if not isinstance(name, str) or driver(path):
            continue
        try:
            bind(node, number)
        except OSError as error:
            done.left.append(f"{path.name} ({one_line(name)}): {error.strerror or error}")
            if error.errno not in _NEVER:
                kept[str(number)] = name
        else:
            done.bound.append(f"{path.name} has its driver {one_line(name)} again")
    return _Record(device["identity"], kept) if kept else None


def _identity(sysfs: str) -> dict[str, str]:
    found = address(Path(sysfs))
    if found is None:
        return {}
    busnum, devnum = map(str, found)
    return {"busnum": busnum, "devnum": devnum, **{name: text(Path(sysfs, name)) for name in _IDENTITY}}


def _left(path: Path, roots: Roots) -> tuple[str, dict[str, object]] | None:
    """When the process of a file was started, and its devices; None for one that lives. Raises OSError."""
    with open(path, "rb") as file:
        raw = file.read(_MAX_SIZE)
    try:
        record = json.loads(raw)
        started, devices = record["started"], record["devices"]
    except (ValueError, KeyError, TypeError):  # not one of ours
        return "", {}
    number = path.name.partition("-")[0]
    if number.isdecimal() and started == _started(int(number), roots):
        return None
    return started, devices if isinstance(devices, dict) else {}


def _started(pid: int, roots: Roots) -> str:
    """When a process was started, which distinguishes it from a later one of its number; empty if there is none."""
    # Ref: proc(5), /proc/PID/stat: field 22; the second one, the name, is in parentheses and may hold any.
    fields = text(Path(roots.proc, str(pid), "stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _bind(node: str, number: int) -> None:
    """Have the kernel look for a driver for an interface. Raises OSError."""
    import fcntl

    fd = os.open(node, os.O_RDWR)
    try:
        fcntl.ioctl(fd, _USBDEVFS_IOCTL, _IOCTL.pack(number, _USBDEVFS_CONNECT, 0))
    finally:
        os.close(fd)


def restore_and_log() -> None:
    """The same, with what came of it in the log."""
    restored = restore()
    for sentence in restored.bound:
        log.info("%s, which a server that was killed had unbound", sentence)
    if restored.left:
        log.warning("%s", restored.complaint)
