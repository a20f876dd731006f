"""Rows of one layout, page by page: what is full leaves memory for a storage, which may be a file."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from struct import Struct
from typing import Any, Protocol

#: Bytes of a page at most. Of each table one is in memory as it grows, and the one that was read last.
_PAGE = 8192


class Storage(Protocol):
    """Where pages are. Shared by the tables of a recording, and used by any thread."""

    def append(self, data: bytes) -> int:
        """Keep `data`; where it begins."""

    def read(self, at: int, size: int) -> bytes:
        """Bytes that were kept."""

    def write(self, at: int, data: bytes) -> None:
        """Change bytes that were kept."""


class MemoryStorage:
    """All of it in memory."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def append(self, data: bytes) -> int:
        at = len(self._kept)
        self._kept += data
        return at

    def read(self, at: int, size: int) -> bytes:
        return bytes(self._kept[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        self._kept[at : at + len(data)] = data


class Rows:
    """A table. layout: of a row, as `struct` writes it. Any thread may read it as soon as nobody appends or patches."""

    __slots__ = ("_cached", "_flushed", "_layout", "_page", "_pages", "_per_page", "_size", "_storage", "_tail", "pack")

    def __init__(self, storage: Storage, layout: str) -> None:
        self._layout = Struct(layout)
        self._size = self._layout.size
        self._per_page = _PAGE // self._size
        self._page = self._per_page * self._size
        self._storage = storage
        self._pages = array("Q")
        self._tail = bytearray()
        self._flushed = 0  # rows that are in the storage
        self._cached = -1, b""
        self.pack = self._layout.pack

    def __len__(self) -> int:
        return self._flushed + len(self._tail) // self._size

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        page, row = divmod(place, self._per_page)
        return self._layout.unpack_from(self._bytes(page), row * self._size)

    def append(self, raw: bytes) -> None:
        """Add a row that `pack` has made."""
        tail = self._tail
        tail += raw
        if len(tail) >= self._page:
            self._pages.append(self._storage.append(bytes(tail)))
            self._flushed += self._per_page
            tail.clear()

    def patch(self, place: int, at: int, raw: bytes) -> None:
        """Change bytes of a row, from its byte `at` on."""
        begin = (place - self._flushed) * self._size + at
        if begin >= 0:
            self._tail[begin : begin + len(raw)] = raw
            return
        page, row = divmod(place, self._per_page)
        self._storage.write(self._pages[page] + row * self._size + at, raw)
        self._cached = -1, b""

    def iterate(self, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """Rows from `start` on, to where it ends now."""
        page, row = divmod(start, self._per_page)
        while page <= len(self._pages):
            yield from self._layout.iter_unpack(memoryview(self._bytes(page))[row * self._size :])
            page, row = page + 1, 0

    def find(self, raw: bytes, start: int = 0, end: int | None = None) -> int | None:
        """The first row from `start` on, before `end`, that is these bytes. As fast as memory is searched."""
        last = len(self) if end is None else end
        page, row = divmod(start, self._per_page)
        while page * self._per_page + row < last:
            held = self._bytes(page)
            at = held.find(raw, row * self._size)
            while at >= 0 and at % self._size:
                at = held.find(raw, at + 1)
            if at >= 0:
                found = page * self._per_page + at // self._size
                return found if found < last else None
            page, row = page + 1, 0
        return None

    def _bytes(self, page: int) -> bytes:
        if page == len(self._pages):
            return bytes(self._tail)
        cached, held = self._cached
        if cached != page:
            held = self._storage.read(self._pages[page], self._page)
            self._cached = page, held
        return held
