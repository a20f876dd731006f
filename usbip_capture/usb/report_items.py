"""The items of a HID report descriptor.

Ref: HID 1.11, 6.2.2.2 (short items) and 6.2.2.3 (long items)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_SIZES = (0, 1, 2, 4)

MAIN, GLOBAL, LOCAL = 0, 1, 2
# Prefixes without their size: tag << 4 | type << 2
USAGE_PAGE, USAGE, USAGE_MINIMUM, USAGE_MAXIMUM = 0x04, 0x08, 0x18, 0x28
UNIT_EXPONENT, UNIT = 0x54, 0x64
INPUT, OUTPUT, FEATURE = 0x80, 0x90, 0xB0
COLLECTION = 0xA0


class ReportItem(NamedTuple):
    """tag: the prefix without its size. data: what follows it, fewer bytes than `size` if the descriptor ends there."""

    tag: int
    size: int
    data: bytes
    offset: int

    @property
    def kind(self) -> int:
        """MAIN, GLOBAL, LOCAL, or 3 for reserved."""
        return self.tag >> 2 & 3

    @property
    def value(self) -> int:
        """The data as an unsigned number."""
        return int.from_bytes(self.data, "little")

    def pack(self) -> bytes:
        """Prefix and data."""
        return bytes([self.tag | _SIZES.index(self.size)]) + self.data


def report_items(raw: bytes) -> Iterator[ReportItem]:
    """The items in their order, each taken as a short one, as lsusb and most parsers do."""
    at = 0
    while at < len(raw):
        size = _SIZES[raw[at] & 3]
        yield ReportItem(raw[at] & ~3, size, raw[at + 1 : at + 1 + size], at)
        at += 1 + size
