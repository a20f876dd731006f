"""The clock of a server beside ours, aligned by the smallest delay seen. Pure."""

from __future__ import annotations

#: The smallest delay is looked for in this time and in the one before: clocks drift apart, and are set.
WINDOW_NS = 60_000_000_000
#: The latest time that a packet can have.
LATEST_NS = (1 << 64) - 1
#: A change of so much is worth a comment.
NEWS_NS = 10_000_000


class ServerClock:
    """What time it is at the server: what came from there was under way for as long as the fastest, at least.

    What is left of that smallest delay cannot be distinguished from a difference of the clocks.
    """

    def __init__(self) -> None:
        self._began_ns: int | None = None
        self._smallest = self._smallest_before = 0  # arrival less the server's time
        self._reported_ns: int | None = None

    def saw(self, server_ns: int, arrival_ns: int) -> None:
        """What the server has made at its time came at ours."""
        difference, began = arrival_ns - server_ns, self._began_ns
        if began is None or arrival_ns < began:
            self._began_ns = arrival_ns
            self._smallest = self._smallest_before = difference
        elif arrival_ns - began >= WINDOW_NS:
            self._began_ns = arrival_ns
            self._smallest_before, self._smallest = self._smallest, difference
        self._smallest = min(self._smallest, difference)

    @property
    def ahead_ns(self) -> int:
        """How far our clock is ahead of the server's, as far as that is known."""
        return min(self._smallest, self._smallest_before)

    def at(self, our_ns: int) -> int:
        """The server's time at this one of ours, as a packet can have it."""
        return min(max(our_ns - self.ahead_ns, 0), LATEST_NS)

    def news(self) -> str:
        """A comment on how our clock is aligned, if it was not made before, or much has changed; else empty."""
        ahead_ns = self.ahead_ns
        if self._began_ns is None or (self._reported_ns is not None and abs(ahead_ns - self._reported_ns) < NEWS_NS):
            return ""
        self._reported_ns = ahead_ns
        return (
            "usbip-capture: times are by the server's clock; what is made here, such as marks, is aligned to it by the "
            f"smallest delay seen: our clock is {ahead_ns / 1e9:+.6f} s ahead"
        )
