"""The configuration file as text, for who changes it: all else in it stays as it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from usbip_capture.errors import UsbipError
from usbip_capture.servers.configuration import MAX_BYTES, read_bytes
from usbip_capture.system.folder_lock import locked_folder
from usbip_capture.system.replacement import Replacement


@contextmanager
def changing(path: str) -> Iterator[None]:
    """Hold its folder from reading the file to replacing it: nobody's change is lost. Raises UsbipError."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(os.path.dirname(path) or "."))
        except OSError as error:
            raise _not_writable(path, error) from error
        yield


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
    data = text.encode()
    if len(data) >= MAX_BYTES:
        raise UsbipError(f"{path} would be too long for a configuration: at most {MAX_BYTES} bytes are read")
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        with Replacement(path) as file:
            file.write(data)
    except OSError as error:
        raise _not_writable(path, error) from error


def _not_writable(path: str, error: OSError) -> UsbipError:
    reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror or error
    return UsbipError(f"{path} cannot be written: {reason}: make its folder writable")
