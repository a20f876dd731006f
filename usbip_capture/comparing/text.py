"""A comparison as lines to read, and as JSON's types."""

from __future__ import annotations

from collections.abc import Iterator

from usbip_capture.comparing.differences import Comparison, Difference
from usbip_capture.recorded.conversation import Exchange


def summary(comparison: Comparison) -> str:
    """One sentence."""
    kinds, both = comparison.kinds, comparison.both
    if not kinds:
        return f"equal: {both} transfers"
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{sum(kinds.values())} differences in {both} transfers that both have: {counts}"


def lines(comparison: Comparison, most: int = 0) -> Iterator[str]:
    """A line for each difference, at most so many if `most` is not 0."""
    found = comparison.differences
    shown = found[:most] if most else found
    yield from map(line, shown)
    if more := sum(comparison.kinds.values()) - len(shown):
        yield f"and {more} more"


def line(difference: Difference) -> str:
    """Packets in both, what was asked, how it differs."""
    if difference.first is None and difference.second is None:
        return difference.text
    where = " / ".join(str(_packet(one)) for one in (difference.first, difference.second))
    return f"packets {where}: {difference.asked}: {difference.text}"


def as_data(comparison: Comparison) -> dict[str, object]:
    """For `--json`."""
    return {
        "summary": summary(comparison),
        "transfers": len(comparison.pairs),
        "differences": [
            {
                "kind": one.kind,
                "packets": [_number(one.first), _number(one.second)],
                "asked": one.asked,
                "text": one.text,
            }
            for one in comparison.differences
        ],
        "more_differences": sum(comparison.kinds.values()) - len(comparison.differences),
    }


def _number(exchange: Exchange | None) -> int | None:
    return None if exchange is None else exchange.number


def _packet(exchange: Exchange | None) -> str:
    return "-" if exchange is None else str(exchange.number)
