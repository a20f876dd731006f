"""Where a capture goes, and when that may be opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from usbip_capture.capture.sinks import Sink


@dataclass(frozen=True)
class Output:
    """open: gets an Event that is set when nobody needs the output any more; raises CaptureError.

    at_once: open it first of all, as somebody waits at the other end. Else it is opened when there is a device: a file
    may be a capture that is worth something.
    """

    open: Callable[[Event], Sink]
    at_once: bool


def is_file(path: str) -> bool:
    """Whether it is, or would be, a regular file."""
    if path == "-" or path.startswith("\\\\.\\pipe\\"):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True
