"""What is attached from where: the files that `usbip attach` writes and `usbip port` reads.

Ref: Linux tools/usb/usbip/src/usbip_attach.c, record_connection(); libsrc/vhci_driver.c, read_record()
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from usbip_capture.system.replacement import Replacement

FOLDER = "/var/run/vhci_hcd"
#: Bytes of a record that are read: host, port and busid are shorter.
_MAX_BYTES = 2048


class Origin(NamedTuple):
    """Where a device is attached from. port: a number, or the name of a service."""

    host: str
    port: str
    busid: str


class Records:
    """The records of this machine's ports, in `folder` (default: usbip's)."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder or FOLDER

    def read(self, port: int) -> Origin | None:
        """None if nobody has recorded it, or it is damaged: then the origin is not known, and that is no error."""
        try:
            with open(self._path(port), "rb") as file:
                words = file.read(_MAX_BYTES).decode("utf-8", "replace").split()
        except OSError:
            return None
        return Origin(*words) if len(words) == 3 else None

    def write(self, port: int, origin: Origin) -> bool:
        """False if it cannot be recorded: the device is attached all the same."""
        if any(not word or word.split() != [word] for word in origin):
            return False  # a blank would make other words of it
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with Replacement(self._path(port)) as file:
                file.write(f"{' '.join(origin)}\n".encode())
        except OSError:
            return False
        return True

    def remove(self, port: int) -> None:
        """Forget it; the folder goes with its last record, as usbip has it."""
        with contextlib.suppress(OSError):
            os.unlink(self._path(port))
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)

    def _path(self, port: int) -> str:
        return os.path.join(self._folder, f"port{port}")
