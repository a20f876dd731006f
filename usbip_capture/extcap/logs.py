"""Where a capture process reports what it does: the log file, the toolbar's log window, a terminal."""

from __future__ import annotations

import logging
import os
import sys

from usbip_capture.errors import CaptureError
from usbip_capture.options.table import Choices
from usbip_capture.system.private_files import open_private
from usbip_capture.system.shown import one_line

log = logging.getLogger("usbip_capture.extcap")
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"


class _Line(logging.Formatter):
    """A record on one line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


class _Sentence(_Line):
    """A record for a person: its time, its text, and that it is a warning or worse."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.capitalize()}: " if record.levelno >= logging.WARNING else ""
        return one_line(f"{record.asctime}.{int(record.msecs):03d} {level}{record.message}")


_LINE = _Line(_FORMAT, "%H:%M:%S")
_SENTENCE = _Sentence("%(asctime)s", "%H:%M:%S")


def start(choices: Choices, window: logging.Handler) -> None:
    """Log into the window, for people, and with levels and modules into a file if there is one. Raises CaptureError."""
    window.setFormatter(_SENTENCE)
    handlers = [window]
    if choices.log_file:
        try:
            file = logging.StreamHandler(os.fdopen(open_private(choices.log_file, append=True), "a", encoding="utf-8"))
            file.setFormatter(_LINE)
            handlers.append(file)
        except OSError as error:
            reason = f"{error.strerror}: choose another place" if error.strerror else str(error)
            raise CaptureError(f"the log file {choices.log_file} cannot be written: {reason}") from error
    root = logging.getLogger("usbip_capture")
    root.addHandler(_Terminal(logging.WARNING))
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(choices.log_level.upper())
    log.info("usbip-extcap on Python %s, %s", sys.version.split()[0], sys.platform)


class _Terminal(logging.Handler):
    """Warnings for a person who captures without Wireshark."""

    def emit(self, record: logging.LogRecord) -> None:
        report(f"{record.levelname.capitalize()}: {record.getMessage()}")


def report(text: str) -> None:
    """Print it for a person who captures without Wireshark; to nobody else."""
    try:
        if sys.stdout is not None and sys.stdout.isatty():
            print(one_line(text), flush=True)
    except (OSError, ValueError):
        pass
