"""Lines as ESP-IDF's log and panic handler print them, without any header of syslog.

Ref: ESP-IDF Programming Guide, Logging library (`E (1234) tag: text`, colours, LOG_TIMESTAMP_SOURCE); esp_rom and
esp_system's panic handler for what they print without a tag
"""

from __future__ import annotations

import re

from usbip_capture.syslog.severity import CRITICAL, DEBUG, ERROR, INFO, WARNING

_LETTERS = {"E": ERROR, "W": WARNING, "I": INFO, "D": DEBUG, "V": DEBUG}
# The tag may be a module path of Rust, as in `esp_idf_svc::wifi`. Without a stamp (ESP_DRAM_LOGx, and all lines with
# LOG_TIMESTAMP_SOURCE_NONE), it has no blank: `I am here: x` is a sentence.
_TIMED = r"\(([0-9]{1,12}|[0-9:. -]{1,32})\) ([^\s:][^:\n]*(?:::[^\s:][^:\n]*)*)"
_UNTIMED = r"([^\s:(]+(?:::[^\s:]+)*)"
_LINE = re.compile(rf"([EWIDV]) (?:{_TIMED}|{_UNTIMED}):(?!:) ?")
#: As much of a tag as fits the app-name of a header. Ref: RFC 5424, 6.2.5
_MAX_TAG = 48
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
        letter, stamp, tag, untimed = line.groups()
        uptime_ns = int(stamp) * 1_000_000 if stamp and stamp.isdigit() else None
        return _LETTERS[letter], _SPACE.sub("_", (tag or untimed)[:_MAX_TAG]), uptime_ns
    untagged = _UNTAGGED.match(text)
    if untagged is None:
        return None
    return (CRITICAL, "panic", None) if untagged["panic"] else (INFO, "boot", None)
