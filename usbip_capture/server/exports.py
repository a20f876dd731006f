"""The devices that a server exports, and who has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from usbip_capture.device import Device
from usbip_capture.usb.info import DeviceInfo, busid_order
from usbip_capture.wire.structs import OpStatus


@dataclass(slots=True, eq=False)
class Export:
    """end_user: disconnects the client that has the device, or is just getting it; None if it is free.

    Takes the reason, and who causes it. serial: as the device has it, for the audit. ruled: what rules are asked about,
    with the serial number, None if that is not known.
    """

    info: DeviceInfo
    open_device: Callable[[], Device]
    serial: str = ""
    ruled: tuple[DeviceInfo, str | None] | None = None
    end_user: Callable[[str, str], None] | None = None
    removed: bool = False

    @property
    def device(self) -> str:
        """VID:PID, or VID:PID:SERIAL, as rules have it."""
        return f"{self.info.idVendor:04x}:{self.info.idProduct:04x}" + (f":{self.serial}" if self.serial else "")


class Exports:
    """Devices by their busids. Each has one user at a time, from `reserve` to `release`."""

    def __init__(self) -> None:
        self._exports: dict[str, Export] = {}
        self._lock = threading.Lock()

    def add(self, export: Export) -> None:
        """Export a device; who has the one that had this busid loses it."""
        busid = export.info.busid
        with self._lock:
            replaced = self._exports.pop(busid, None)
            self._exports[busid] = export
            end_user = _removed(replaced)
        if end_user is not None:
            end_user(f"another device is exported as {busid}", "device")

    def remove(self, busid: str, reason: str, by: str) -> Export | None:
        """Export it no more; who has it, or is just getting it, loses it for this reason. Returns what it was."""
        with self._lock:
            export = self._exports.pop(busid, None)
            end_user = _removed(export)
        if end_user is not None:
            end_user(reason, by)
        return export

    def free(self) -> list[DeviceInfo]:
        """Those that nobody has, as their ports are."""
        with self._lock:
            free = [export.info for export in self._exports.values() if export.end_user is None]
        return sorted(free, key=lambda info: busid_order(info.busid))

    def find(self, busid: str) -> Export | None:
        """The export of this busid."""
        with self._lock:
            return self._exports.get(busid)

    def reserve(self, export: Export, end_user: Callable[[str, str], None]) -> OpStatus:
        """OK: it is the caller's until `release`. end_user: called from any thread if it is removed meanwhile."""
        with self._lock:
            if export.removed:
                return OpStatus.NODEV
            if export.end_user is not None:
                return OpStatus.DEV_BUSY
            export.end_user = end_user
            return OpStatus.OK

    def release(self, export: Export) -> None:
        """The next client may have it."""
        with self._lock:
            export.end_user = None


def _removed(export: Export | None) -> Callable[[str, str], None] | None:
    """Mark it; who is to be disconnected. The lock is held."""
    if export is None:
        return None
    export.removed = True
    return export.end_user
