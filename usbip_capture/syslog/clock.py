"""A device's clock, aligned to ours by the smallest delay that its messages had."""

from __future__ import annotations

#: The smallest delay is looked for among the messages of this time and of the one before: clocks drift apart.
WINDOW_NS = 60_000_000_000
#: A message with an earlier stamp than one before, that would have been underway for longer than this, is of a clock
#: that has been started anew: messages of two tasks overtake each other by less.
RESTART_NS = 2_000_000_000


class AlignedClock:
    """Computes when messages of one device were made, by our clock: as long before their arrival as they were late.

    What is left is the smallest delay seen, which cannot be distinguished from a difference of the clocks.
    """

    def __init__(self) -> None:
        self._window_start_ns: int | None = None
        self._smallest = self._smallest_before = 0  # arrival less device time
        self._latest_ns = 0

    def align(self, device_ns: int, arrival_ns: int) -> int:
        """When the message was made, in nanoseconds of our clock; never later than its arrival."""
        difference = arrival_ns - device_ns
        start = self._window_start_ns
        smallest = min(self._smallest, self._smallest_before)
        restarted = device_ns < self._latest_ns and difference - smallest > RESTART_NS
        if start is None or restarted or arrival_ns < start:
            self._window_start_ns = arrival_ns
            self._smallest = self._smallest_before = difference
            self._latest_ns = device_ns
        elif arrival_ns - start >= WINDOW_NS:
            self._window_start_ns = arrival_ns
            self._smallest_before = self._smallest
            self._smallest = difference
        self._smallest = min(self._smallest, difference)
        self._latest_ns = max(self._latest_ns, device_ns)
        return device_ns + min(self._smallest, self._smallest_before)
