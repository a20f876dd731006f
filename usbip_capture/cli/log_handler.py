"""What becomes of a device, or of its log, while a command reads it: reported on standard error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from usbip_capture.cli.terminal import report


class LogHandler(logging.Handler):
    """Prints each record as a sentence; `printed` is set with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            report(record.getMessage())
        except OSError:  # nobody reads it: no reason to end what is reported on
            pass
        self.printed.set()


@contextmanager
def reported(name: str) -> Iterator[LogHandler]:
    """Within the block, what the logger `name` reports goes to standard error."""
    handler = LogHandler()
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
