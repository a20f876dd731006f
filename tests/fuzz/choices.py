"""A fuzzer's bytes as choices: the same bytes are always the same test, with or without the fuzzer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Takes numbers and bytes from the front; when nothing is left, zeros and empty bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, low: int, high: int) -> int:
        """One of `low` to `high`, both included."""
        size = ((high - low).bit_length() + 7) // 8
        return low + int.from_bytes(self.data(size), "little") % (high - low + 1)

    def flag(self) -> bool:
        return bool(self.number(0, 1))

    def pick(self, of: Sequence[T]) -> T:
        return of[self.number(0, len(of) - 1)]

    def data(self, size: int) -> bytes:
        """At most `size` bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def chunk(self, most: int) -> bytes:
        """1 to `most` bytes, as TCP would cut them."""
        return self.data(self.number(1, most))
