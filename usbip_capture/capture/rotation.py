"""When a capture goes on in another file, and what that file is called: as dumpcap's option -b has it.

Ref: Wireshark 4.0, doc/man_pages/dumpcap.adoc, -b; ringbuffer.c for the names
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from usbip_capture.errors import LocalProtocolError

_KILOBYTE = 1000
_KEYS = ("duration", "interval", "filesize", "packets", "files")
_FORM = "duration:SECONDS, interval:SECONDS, filesize:KB, packets:N or files:N, N > 0"
_MOST = 1 << 40


@dataclass(slots=True, frozen=True)
class Rotation:
    """What begins the next file; 0 does not.

    duration: seconds in one file. interval: seconds, at whole multiples of the clock. size: bytes. packets: packets.
    files: how many are kept, the oldest go; 0 keeps all.
    """

    duration: int = 0
    interval: int = 0
    size: int = 0
    packets: int = 0
    files: int = 0

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rotation:
        """From `KEY:NUMBER`, such as `filesize:1000`. Raises LocalProtocolError."""
        values: dict[str, int] = {}
        for text in texts:
            key, colon, number = text.partition(":")
            if key not in _KEYS or not colon or not number.isdecimal() or not 0 < int(number) <= _MOST:
                raise LocalProtocolError(f"-b {text} is not valid: use {_FORM}")
            values[key] = int(number)
        size = values.pop("filesize", 0) * _KILOBYTE
        if not size and not values.keys() - {"files"}:
            raise LocalProtocolError("files:NUMBER alone never begins another file: add filesize, duration or packets")
        return cls(size=size, **values)

    def due(self, *, now: float, started: float, size: int, packets: int) -> bool:
        """Whether the next packet goes into another file. Times in seconds; `size` in bytes, with the next packet."""
        if not packets:
            return False  # a file without packets would not help anybody
        return bool(
            (self.size and size > self.size)
            or (self.packets and packets >= self.packets)
            or (self.duration and now - started >= self.duration)
            or (self.interval and now // self.interval > started // self.interval)
        )


def file_name(path: str, number: int, now: float) -> str:
    """`capture_00001_20240102030405.pcapng` for `capture.pcapng`; `.gz` stays at the end. `now` in seconds."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() == ".gz":
        stem, inner = os.path.splitext(stem)
        suffix = inner + suffix
    return f"{stem}_{number:05d}_{time.strftime('%Y%m%d%H%M%S', time.localtime(now))}{suffix}"
