"""Messages as lines for people."""

from __future__ import annotations

import time

from usbip_capture.syslog.message import Message
from usbip_capture.system.shown import one_line


def line(message: Message, *, with_source: bool = False) -> str:
    """Time of arrival, severity, source and text; further lines of a message are indented.

    with_source: also from which address it came.
    """
    seconds, nanoseconds = divmod(message.arrival_ns, 1_000_000_000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{nanoseconds // 1_000_000:03d}"
    source = f"{message.source} " if with_source else ""
    flaw = f" ({message.flaw})" if message.flaw else ""
    shown = f"{clock} {source}{message.severity_name:9} {message.tagged_text}{flaw}"
    return "\n    ".join(map(_printable, shown.split("\n")))


def _printable(text: str) -> str:
    return "\t".join(map(one_line, text.split("\t")))
