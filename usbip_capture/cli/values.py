"""The types of options' values: what they stand for, or a sentence that names what is possible."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable

#: Of a wait, in seconds: a day.
MAX_WAIT = 86_400
#: Of transfers or packets to count.
MAX_COUNT = 0x7FFFFFFF
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")


def number(text: str, least: int = 0, most: int | None = None) -> int:
    """A whole number: 255, 0xff, 0b11111111 or 0o377."""
    try:
        value = int(text, 0)
    except ValueError:
        raise ArgumentTypeError(f"must be a number such as 255, 0xff, 0b11111111 or 0o377, not {text!r}") from None
    if value < least:
        raise ArgumentTypeError(f"must be {least} or more, not {text}")
    if most is not None and value > most:
        raise ArgumentTypeError(f"must be at most {most if text.isdecimal() else hex(most)}, not {text}")
    return value


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of a whole number from `least` to `most`."""
    return lambda text: number(text, least, most)


number8 = whole(0, 0xFF)
number16 = whole(0, 0xFFFF)
count = whole(0, MAX_COUNT)


def port(text: str) -> int:
    """A TCP port."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) < 65536):
        raise ArgumentTypeError(f"{text} is not a TCP port (1 to 65535)")
    return int(text)


def seconds(text: str, most: int = MAX_WAIT, unit: str = "a day") -> float:
    """A time from 0 to `most` seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ArgumentTypeError(f"must be a number of seconds such as 2 or 0.5, not {text!r}")
    if value < 0:
        raise ArgumentTypeError(f"must be 0 seconds or more, not {text}")
    if value > most:
        raise ArgumentTypeError(f"must be at most {most} seconds ({unit}), not {text}")
    return value


def wait(text: str) -> float:
    """A time that something is waited for: more than 0."""
    value = seconds(text)
    if not value:
        raise ArgumentTypeError(f"must be more than 0 seconds, not {text}")
    return value


def duration(text: str) -> float:
    """A time in days, hours, minutes and seconds: `2h`, `90m`, `1d12h`; in seconds."""
    found = _DURATION.fullmatch(text.strip().lower())
    parts = [int(part or 0) for part in found.groups()] if found else []
    if not any(parts):
        raise ArgumentTypeError(f"must be a time such as 2h, 90m, 1d or 1h30m, not {text!r}")
    return float(sum(part * unit for part, unit in zip(parts, (86_400, 3600, 60, 1), strict=True)))


def data_hex(text: str) -> bytes:
    """Bytes in hexadecimal: `0102`, `01 02`, `01:02`."""
    try:
        return bytes.fromhex(text.replace(":", " ").replace("0x", " "))
    except ValueError:
        raise ArgumentTypeError(
            f"must be two hexadecimal digits for each byte, such as '01 02', not {text!r}"
        ) from None


def capture_file(text: str) -> str:
    """Where a capture goes: pcapng, whatever it is called, so that a name that promises otherwise is refused."""
    from usbip_capture.capture.files import misleading_ending

    if not text:
        raise ArgumentTypeError("needs the name of a file")
    if wrong := misleading_ending(text):
        raise ArgumentTypeError(wrong)
    return text


def socket_path(text: str) -> str:
    """The name of a Unix socket; an empty one, as of a variable that is not set, would mean another place to listen."""
    if not text:
        raise ArgumentTypeError("needs the name of a socket")
    return text
