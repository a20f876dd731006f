"""How much is kept of what happened, for those who begin to look afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass

from usbip_capture.errors import LocalProtocolError

#: Bytes that are kept where only a time is given, and the most of both.
_DEFAULT_BYTES = 16 << 20
_MAX_SECONDS, _MAX_BYTES, _LEAST_BYTES = 86_400.0, 1 << 30, 64 << 10
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]+)")
_FORM = "write a time, a size or both, such as 30s,16MiB"


@dataclass(slots=True, frozen=True)
class Span:
    """Of each device, what happened in the last `seconds`, as far as it fits into `max_bytes` of memory.

    seconds: 0 for any time.
    """

    seconds: float = 0.0
    max_bytes: int = _DEFAULT_BYTES

    @classmethod
    def parse(cls, text: str) -> Span:
        """`30s`, `16MiB` or `30s,16MiB`. Raises LocalProtocolError."""
        seconds, size = 0.0, 0
        for part in text.split(","):
            found = _PART.fullmatch(part.strip())
            unit = found[2] if found is not None else ""
            if found is not None and unit in _SECONDS and not seconds:
                seconds = float(found[1]) * _SECONDS[unit]
                if not 0 < seconds <= _MAX_SECONDS:
                    raise LocalProtocolError(f"{part.strip()} cannot be kept: from 1ms to 24h")
            elif found is not None and unit in _BYTES and not size:
                size = int(float(found[1]) * _BYTES[unit])
                if not _LEAST_BYTES <= size <= _MAX_BYTES:
                    raise LocalProtocolError(f"{part.strip()} cannot be kept: from 64KiB to 1GiB of each device")
            else:
                raise LocalProtocolError(f"{text!r} is not what is to be kept: {_FORM}")
        return cls(seconds, size or _DEFAULT_BYTES)


def check_offer(offer: bool, hindsight: str) -> None:
    """Whether a program can be offered so. Raises LocalProtocolError."""
    if hindsight:
        Span.parse(hindsight)
        if not offer:
            raise LocalProtocolError("hindsight is for those who join this program: add offer")
