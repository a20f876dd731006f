"""What becomes of a device's log while a command reads it: told to the person at standard error."""

from __future__ import annotations

import logging
import threading

from usbip_capture.cli.terminal import tell


class Said(logging.Handler):
    """Tells each record; `something` is set with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.something = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage())
        self.something.set()
