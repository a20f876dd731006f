"""The file that keeps leases over the end of the server: beside the configuration, for its user only."""

from __future__ import annotations

import os
from collections.abc import Callable

from usbip_capture.access.leases import Leases
from usbip_capture.errors import FileFormatError, LocalProtocolError, UsbipError
from usbip_capture.servers.configuration import MAX_BYTES, read_bytes
from usbip_capture.system.folder_lock import locked_folder
from usbip_capture.system.folders import configuration_folder
from usbip_capture.system.replacement import Replacement

_NAME = "leases.json"


def leases_path() -> str:
    """Where it is, whether it exists or not."""
    return os.path.join(configuration_folder(), _NAME)


class LeaseFile:
    """The file at `path`. check: raises LocalProtocolError for the text of a holder that is not one."""

    def __init__(self, path: str, check: Callable[[str], object]) -> None:
        self.path = path
        self._check = check

    def read(self) -> Leases:
        """What is in it; none if there is no file. Raises FileFormatError if it is damaged, UsbipError."""
        if os.path.lexists(self.path) and not os.path.isfile(self.path):
            raise UsbipError(f"{self.path} is not a file: move it")
        try:
            there = os.path.exists(self.path)
            raw = read_bytes(self.path)
        except OSError as error:
            raise UsbipError(
                f"{self.path} cannot be read: {error.strerror or error}: make it readable, or move it"
            ) from error
        if not raw and not there:
            return Leases()
        try:
            if len(raw) >= MAX_BYTES:
                raise ValueError(f"it is longer than {MAX_BYTES} bytes")
            leases = Leases.parse(raw.decode())
            for holder in leases.holders:
                self._check(holder)
        except (ValueError, UsbipError) as error:
            raise FileFormatError(
                f"{self.path} is damaged: {error}: correct it, or remove it if no device is reserved"
            ) from error
        return leases

    def change(self, changed: Callable[[Leases], Leases]) -> Leases:
        """Replace it by what `changed` makes of it. Raises UsbipError, and what `changed` raises; then it stays."""
        try:
            with locked_folder(os.path.dirname(self.path)):
                leases = changed(self.read())
                data = f"{leases}\n".encode()
                if len(data) >= MAX_BYTES:
                    raise LocalProtocolError("more cannot be reserved: release what is not needed any more")
                with Replacement(self.path) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise UsbipError(
                f"{self.path} cannot be written: {error.strerror or error}: make its folder writable"
            ) from error
        return leases
