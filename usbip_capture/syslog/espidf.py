"""Lines as ESP-IDF's log and panic handler print them, without any header of syslog.

Ref: ESP-IDF Programming Guide, Logging library (`E (1234) tag: text`, colours, LOG_TIMESTAMP_SOURCE); esp_rom and
esp_system's panic handler for what they print without a tag
"""

from __future__ import annotations

import re

from usbip_capture.syslog.severity import CRITICAL, DEBUG, ERROR, INFO, WARNING

_LETTERS = {"E": ERROR, "W": WARNING, "I": INFO, "D": DEBUG, "V": DEBUG}
_LINE = re.compile(r"([EWIDV]) \(([0-9]{1,12}|[0-9:. -]{1,32})\) ([^\s:][^:\n]{0,47}): ?")
_SPACE = re.compile(r"\s")
# Colours and other control sequences of a terminal. Ref: ECMA-48, 5.4
_ANSI = re.compile(r"\x1b\[[0-?]{0,32}[ -/]*[@-~]")
_UNTAGGED = re.compile(
    r"(?P<panic>Guru Meditation Error|abort\(\) was called|assert failed:|\*\*\*ERROR\*\*\*|Backtrace:|Stack smashing)"
    r"|(?P<boot>ESP-ROM:|rst:0x|Rebooting\.\.\.|entry 0x|ets [A-Z][a-z]{2} )"
)


def without_colours(text: str) -> str:
    """`text` without the control sequences of a terminal."""
    return _ANSI.sub("", text) if "\x1b" in text else text


def recognize(text: str) -> tuple[int, str, int | None] | None:
    """Severity, tag, and uptime in nanoseconds if there is one, of a line without colours; None for any other text.

    A space in the tag, as in `USB HOST`, is given as `_`: it is to be the app-name of a header.
    """
    line = _LINE.match(text)
    if line is not None:
        letter, stamp, tag = line.groups()
        return _LETTERS[letter], _SPACE.sub("_", tag), int(stamp) * 1_000_000 if stamp.isdigit() else None
    untagged = _UNTAGGED.match(text)
    if untagged is None:
        return None
    return (CRITICAL, "panic", None) if untagged["panic"] else (INFO, "boot", None)
