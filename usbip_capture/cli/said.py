"""Log records for the person at standard error."""

from __future__ import annotations

import logging
import threading

from usbip_capture.cli.terminal import tell


class Said(logging.Handler):
    """Prints each record as a sentence; `something` is set with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.something = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tell(record.getMessage())
        except OSError:  # nobody reads it: no reason to end what is told of
            pass
        self.something.set()
