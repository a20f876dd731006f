"""Lines of `lsusb -v`: a value ends 25 columns after the beginning of its name."""

from __future__ import annotations

from collections.abc import Mapping

_WIDTH = 25


def field(indent: int, name: str, value: str, width: int = _WIDTH) -> str:
    """A name and a value; a blank at least is between them."""
    return " " * indent + name + value.rjust(max(width - len(name), len(value) + (not name.endswith(" "))))


def number(indent: int, name: str, value: int) -> str:
    """A decimal value."""
    return field(indent, name, str(value))


def named(indent: int, name: str, value: str, meaning: str, width: int = _WIDTH) -> str:
    """A value and what it stands for, if that is known."""
    return f"{field(indent, name, value, width)} {meaning}"


def string(indent: int, name: str, index: int, strings: Mapping[int, str], width: int = _WIDTH) -> str:
    """The index of a string, and the string; `(error)` if the device did not send it. It may hold anything."""
    text = strings.get(index, "(error)") if index else ""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return named(indent, name, str(index), shown, width)
