"""The backend of a program that was started with `usbip-capture use`."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TypedDict

from usbip_capture.pyusb_backend import get_backend
from usbip_capture.pyusb_backend.backend import UsbipBackend


class UseSettings(TypedDict):
    """What `usbip-capture use` was asked for. marker: a file that is made by the first process that needs a backend."""

    host: str
    port: int
    device: str
    timeout: float
    reconnect: float
    pcap: str
    marker: str


_backend: UsbipBackend | None = None
_lock = threading.Lock()


def shared_backend(settings: UseSettings) -> UsbipBackend:
    """Always the same one, as libusb's `get_backend` does. Raises UsbipError."""
    global _backend  # noqa: PLW0603  one for the process, as in PyUSB
    with _lock:
        if _backend is None:
            _backend = get_backend(
                settings["host"],
                settings["port"],
                settings["timeout"],
                _capture(settings),
                device=settings["device"],
                reconnect=settings["reconnect"],
            )
        return _backend


def _capture(settings: UseSettings) -> str | None:
    """The file to capture to: of the program's first process the one that was asked for, of others beside it."""
    path = settings["pcap"]
    try:
        os.close(os.open(settings["marker"], os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        if path:
            name = Path(path)
            path = str(name.with_name(f"{name.stem}-{os.getpid()}{name.suffix}"))
    return path or None
