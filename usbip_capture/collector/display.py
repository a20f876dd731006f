"""Messages as lines for people."""

from __future__ import annotations

import re
import time

from usbip_capture.syslog.message import Message

#: What a terminal might take for a command, or that turns the line around: a device decides what is in its messages.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def line(message: Message, *, with_source: bool = False) -> str:
    """Time of arrival, severity, who says it and what; further lines of a message are indented.

    with_source: also from which address it came.
    """
    seconds, nanoseconds = divmod(message.arrival_ns, 1_000_000_000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{nanoseconds // 1_000_000:03d}"
    source = f"{message.source} " if with_source else ""
    flaw = f" ({message.flaw})" if message.flaw else ""
    shown = f"{clock} {source}{message.severity_name:9} {message.said}{flaw}"
    return _CONTROL.sub(lambda control: f"\\x{ord(control[0]):02x}", shown).replace("\n", "\n    ")
