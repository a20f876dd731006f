"""The devices that a server exports, and who has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from usbip_capture.device import Device
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.structs import OpStatus


@dataclass(slots=True, eq=False)
class Export:
    """end_user: disconnects the client that has the device, or is just getting it; None if it is free."""

    info: DeviceInfo
    open_device: Callable[[], Device]
    end_user: Callable[[], None] | None = None
    removed: bool = False


class Exports:
    """Devices by their busids. Each has one user at a time, from `reserve` to `release`."""

    def __init__(self) -> None:
        self._exports: dict[str, Export] = {}
        self._lock = threading.Lock()

    def add(self, info: DeviceInfo, open_device: Callable[[], Device]) -> None:
        """Export a device; who has the one that had this busid loses it."""
        with self._lock:
            replaced = self._exports.pop(info.busid, None)
            self._exports[info.busid] = Export(info, open_device)
            end_user = _removed(replaced)
        if end_user is not None:
            end_user()

    def remove(self, busid: str) -> None:
        """Export it no more; who has it, or is just getting it, loses it."""
        with self._lock:
            end_user = _removed(self._exports.pop(busid, None))
        if end_user is not None:
            end_user()

    def free(self) -> list[DeviceInfo]:
        """Those that nobody has."""
        with self._lock:
            return [export.info for export in self._exports.values() if export.end_user is None]

    def find(self, busid: str) -> Export | None:
        """The export of this busid."""
        with self._lock:
            return self._exports.get(busid)

    def reserve(self, export: Export, end_user: Callable[[], None]) -> OpStatus:
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


def _removed(export: Export | None) -> Callable[[], None] | None:
    """Mark it; who is to be disconnected. The lock is held."""
    if export is None:
        return None
    export.removed = True
    return export.end_user
