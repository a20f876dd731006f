"""What becomes of a device, or of its log, while a command reads it: reported on standard error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def reported(name: str) -> Iterator[Said]:
    """Within the block, what the logger `name` reports goes to standard error."""
    said = Said()
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(said)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(said)
        logger.setLevel(level)
