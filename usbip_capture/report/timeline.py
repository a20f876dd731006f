"""What happened when, in slices of time that grow with the capture, so that any capture has about as many. Pure."""

from __future__ import annotations

from typing import TypeAlias

FIRST_WIDTH_NS = 1000
#: Slices from the first event to the last, and those of all series together that have something in them.
MAX_SLICES = 2048
MAX_CELLS = 1 << 17

# Places in a cell. A list, as it is counted up for each URB.
URBS, BYTES, ERRORS, TIMED, TIME_SUM_NS, TIME_MAX_NS = range(6)
Cell: TypeAlias = "list[int]"
Series: TypeAlias = "dict[int, Cell]"


class Timeline:
    """Keeps the series of all endpoints in slices of the same `width_ns`, which doubles when there are too many.

    A slice's number is its time divided by `width_ns`. `first` and `last` are the outermost.
    """

    def __init__(self) -> None:
        self.width_ns = FIRST_WIDTH_NS
        self._series: list[Series] = []
        self._cells = 0
        self._begun = False
        self.first = 0
        self.last = 0

    def new_series(self) -> Series:
        """A series without events. To be read only: `cell` adds to it."""
        self._series.append({})
        return self._series[-1]

    def cell(self, series: Series, timestamp_ns: int) -> Cell:
        """The cell of a series for an event at this time."""
        cell = series.get(timestamp_ns // self.width_ns)
        return self._make(series, timestamp_ns) if cell is None else cell

    def cover(self, timestamp_ns: int) -> None:
        """Let the time line reach to this time, whether something is in it or not."""
        number = timestamp_ns // self.width_ns
        if self._begun:
            self.first, self.last = min(self.first, number), max(self.last, number)
        else:
            self.first = self.last = number
            self._begun = True
        while self.last - self.first >= MAX_SLICES:
            self._coarsen()

    def _make(self, series: Series, timestamp_ns: int) -> Cell:
        self.cover(timestamp_ns)
        while self._cells >= max(MAX_CELLS, len(self._series)):
            self._coarsen()
        self._cells += 1
        return series.setdefault(timestamp_ns // self.width_ns, [0] * 6)

    def _coarsen(self) -> None:
        """Two slices become one."""
        self.width_ns *= 2
        self.first, self.last = self.first // 2, self.last // 2
        self._cells = 0
        for series in self._series:
            cells = list(series.items())
            series.clear()
            for number, cell in cells:
                into = series.setdefault(number // 2, [0] * 6)
                for place in (URBS, BYTES, ERRORS, TIMED, TIME_SUM_NS):
                    into[place] += cell[place]
                into[TIME_MAX_NS] = max(into[TIME_MAX_NS], cell[TIME_MAX_NS])
            self._cells += len(series)
