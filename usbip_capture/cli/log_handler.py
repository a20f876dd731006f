"""What becomes of a device, or of its log, while a command reads it: reported on standard error."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from usbip_capture.cli.terminal import report

#: Lines that wait to be printed, and seconds that the last ones are worth waiting for.
_MAX_LINES, _LAST_LINES = 1000, 2.0


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


class QueuedLines(logging.Handler):
    """Prints log lines on a thread of its own: who holds up the terminal (Ctrl-S, `less`) holds up no device."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_LINES)
        self._thread = threading.Thread(target=self._print, name="usbip-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have it printed, if there is room."""
        try:
            self._lines.put_nowait(record.getMessage())
        except queue.Full:
            pass

    def close(self) -> None:
        """Print what there is, if that can be done soon."""
        try:
            self._lines.put_nowait(None)
            self._thread.join(_LAST_LINES)
        except queue.Full:
            pass
        super().close()

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                report(line)
            except (OSError, ValueError):  # nobody reads it: no reason to cut clients off
                pass


@contextmanager
def queued(*names: str) -> Iterator[None]:
    """Within the block, what these loggers report goes to standard error, and nobody waits for that."""
    handler = QueuedLines()
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
