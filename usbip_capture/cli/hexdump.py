"""Bytes as people read them."""

from __future__ import annotations

from collections.abc import Iterator

_A_LINE = 16
#: In place of the lines of none.
NO_DATA = "(no data)"


def hexdump(data: bytes) -> Iterator[str]:
    """Lines of offset, 16 bytes and their characters, as `hexdump -C` prints them."""
    for at in range(0, len(data), _A_LINE):
        part = data[at : at + _A_LINE]
        digits = f"{part[:8].hex(' '):23}  {part[8:].hex(' '):23}"
        characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield f"{at:08x}  {digits}  |{characters}|"
