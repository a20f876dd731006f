"""Lines of `lsusb -v`: a value ends 25 columns after the beginning of its name."""

from __future__ import annotations

from collections.abc import Mapping

_WIDTH = 25


def field(indent: int, name: str, value: str) -> str:
    """A name and a value."""
    return " " * indent + name + value.rjust(_WIDTH - len(name))


def number(indent: int, name: str, value: int) -> str:
    """A decimal value."""
    return field(indent, name, str(value))


def named(indent: int, name: str, value: str, meaning: str) -> str:
    """A value and what it stands for, if that is known."""
    return f"{field(indent, name, value)} {meaning}"


def string(indent: int, name: str, index: int, strings: Mapping[int, str]) -> str:
    """The index of a string, and the string; `(error)` if the device has not told it. It may hold anything."""
    text = strings.get(index, "(error)") if index else ""
    return named(indent, name, str(index), "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text))
