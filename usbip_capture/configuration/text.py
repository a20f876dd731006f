"""The configuration file as text, for who changes it: all else in it stays as it is."""

from __future__ import annotations

import os

from usbip_capture.errors import UsbipError
from usbip_capture.servers.configuration import MAX_BYTES, read_bytes
from usbip_capture.system.replacement import Replacement


def read_text(path: str) -> str:
    """What is in it, empty if there is none. Raises UsbipError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsbipError(f"{path} is not a file: move it")
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise UsbipError(f"{path} cannot be read: {error.strerror or error}: make it readable, or move it") from error
    if len(raw) >= MAX_BYTES:
        raise UsbipError(f"{path} is too long for a configuration: at most {MAX_BYTES} bytes are read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsbipError(f"{path} is not UTF-8: {error}: correct it first") from error


def write_text(path: str, text: str) -> None:
    """Replace it, as a whole; its folder is made. Raises UsbipError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with Replacement(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsbipError(f"{path} cannot be written: {error.strerror or error}: make its folder writable") from error
