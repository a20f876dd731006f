"""Places in a recording: which of them were used, and where one digest is."""

from __future__ import annotations

from usbip_capture.recorded.rows import Rows


class Places:
    """A set of places, a bit each up to the last."""

    __slots__ = ("_bits", "_count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, place: int) -> bool:
        return place >> 3 < len(self._bits) and bool(self._bits[place >> 3] >> (place & 7) & 1)

    def add(self, place: int) -> None:
        """Put it in."""
        byte, bit = place >> 3, 1 << (place & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if not self._bits[byte] & bit:
            self._bits[byte] |= bit
            self._count += 1

    def copy(self) -> Places:
        """As it is now."""
        made = Places()
        made._bits, made._count = bytearray(self._bits), self._count
        return made


class Search:
    """The places of one digest, found as they are needed; what was found once is not looked for again.

    last: the last place that was found, which is the last there is once nothing follows any more.
    """

    __slots__ = ("_digest", "_end", "_found", "_from", "_rows", "_unused", "last")

    def __init__(self, rows: Rows, digest: bytes) -> None:
        self._rows = rows
        self._digest = digest
        self._from, self._found = 0, -1  # the first one from there on is that; -1: not looked for
        self._end: int | None = None  # from there on there is none
        self._unused: int | None = 0  # from there on there may be unused ones
        self.last: int | None = None

    def following(self, start: int) -> int | None:
        """The first one from `start` on."""
        if self._end is not None and start >= self._end:
            return None
        if not self._from <= start <= self._found:
            found = self._rows.find(self._digest, start)
            if found is None:
                self._end = start
                return None
            self._from, self._found = start, found
        self.last = self._found if self.last is None else max(self._found, self.last)
        return self._found

    def unused(self, used: Places) -> int | None:
        """The first one that is not used; who asks does so with one set of places, which only grows."""
        while self._unused is not None:
            found = self.following(self._unused)
            if found is not None and found not in used:
                return found
            self._unused = None if found is None else found + 1
        return None
