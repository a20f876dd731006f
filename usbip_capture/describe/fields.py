"""Descriptors of classes by tables of their fields, in the layout of `lsusb -v`.

A table has a `Field` for each field of the specification, in the order of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from usbip_capture.describe.layout import field, string
from usbip_capture.describe.naming import version

_COUNTED = "({})"
_LONG = 6  # longer values begin at a column of their own
_LONG_COLUMN = 19
_BYTES_A_LINE = 16


@dataclass(slots=True, frozen=True)
class Field:
    """One field, or as many as `count` names.

    size: bytes, or the field that holds it. style: d decimal, x hexadecimal, v version, s index of a string.
    meaning: of a value. bits: their names, from bit 0 on. controls: names of pairs of bits, which define how a control
    may be used. count: the name of the field that counts them; `rest` for as many as leave one byte.
    """

    name: str
    size: int | str = 1
    style: str = "d"
    meaning: Callable[[int], str] | None = None
    bits: Sequence[str] = ()
    controls: Sequence[str] = ()
    count: str = ""


def table_lines(
    indent: int, fields: Sequence[Field], data: bytes, strings: Mapping[int, str], width: int = 25
) -> Iterator[str]:
    """The fields in `data`; what is missing or left over is shown, as nothing is believed to be longer than it is."""
    known: dict[str, int] = {}
    at = 0
    for one in fields:
        size = known.get(one.size, 1) if isinstance(one.size, str) else one.size
        rest = max(len(data) - at - 1, 0) // max(size, 1)
        times = 1 if not one.count else rest if one.count == "rest" else known.get(one.count, 0)
        for number in range(times):
            if not size or at + size > len(data):
                yield f"{' ' * (indent - 2)}Warning: Length insufficient for descriptor type."
                return
            value = int.from_bytes(data[at : at + size], "little")
            at += size
            known[one.name] = value
            name = one.name + (_COUNTED.format(number) if one.count and "{" not in one.name else "")
            yield from _lines(indent, one, name.format(number), value, size, strings, width)
    if at < len(data):
        yield f"{' ' * (indent - 2)}Warning: Junk at end of descriptor ({len(data) - at} bytes):"
        for start in range(at, len(data), _BYTES_A_LINE):
            yield f"{' ' * indent}{data[start : start + _BYTES_A_LINE].hex(' ')}"


def _lines(
    indent: int, one: Field, name: str, value: int, size: int, strings: Mapping[int, str], width: int
) -> Iterator[str]:
    if one.style == "s":
        yield string(indent, name, value, strings, width)
        return
    shown = {"d": str(value), "x": f"{value:#0{2 + 2 * size}x}", "v": version(value)}[one.style]
    if len(shown) > _LONG and one.style == "x" and width == 25:
        name = name.ljust(_LONG_COLUMN)
    text = field(indent, name, shown, width)
    yield f"{text} {one.meaning(value)}" if one.meaning is not None else text
    for bit, word in enumerate(one.bits):
        if value >> bit & 1 and word:
            yield f"{' ' * indent}  {word}"
    for pair, word in enumerate(one.controls):
        use = value >> 2 * pair & 3
        if use:
            yield f"{' ' * indent}  {word} Control ({('', 'read-only', 'ILLEGAL VALUE (0b10)', 'read/write')[use]})"
