"""Time stamps of RFC 3339, to the nanosecond.

Ref: RFC 5424, 6.2.3; RFC 3339, 5.6
"""

from __future__ import annotations

import re
from datetime import date, datetime, timezone

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = date(1970, 1, 1).toordinal()


def parse_rfc3339(text: str) -> int | None:
    """Nanoseconds since 1970 in UTC; None if `text` is not such a stamp, or not a possible time."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = match.groups()[6:]
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    if sign:
        zone = (int(zone_hours) * 60 + int(zone_minutes)) * 60
        seconds += -zone if sign == "+" else zone
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def format_rfc3339(seconds: float) -> str:
    """Seconds since 1970 as a stamp in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
