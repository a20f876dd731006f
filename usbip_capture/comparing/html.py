"""A comparison as one page that needs nothing else: both sessions side by side on one time line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from importlib import resources

from usbip_capture import __version__
from usbip_capture.comparing.differences import Comparison, Pair
from usbip_capture.comparing.text import summary
from usbip_capture.recorded.conversation import Exchange

#: Rows of one page; before and after a difference, so many that are equal are shown.
MAX_ROWS = 5000
_AROUND = 3
_TOKEN = re.compile(r"\{\{(\w+)\}\}")
_NANO = 1e-9


def html_page(comparison: Comparison, first: str, second: str) -> str:
    """The page; first, second: names of the captures. Nothing from a capture becomes markup."""
    begin = _begin([pair.first for pair in comparison.pairs]), _begin([pair.second for pair in comparison.pairs])
    rows = list(_rows(comparison.pairs, begin))
    left_out = f" {len(rows) - MAX_ROWS} further rows are left out." if len(rows) > MAX_ROWS else ""
    described = "".join(f"<li>{escape(one.text)}</li>" for one in comparison.descriptors)
    parts = {
        "title": escape(f"{first} and {second}"),
        "summary": escape(summary(comparison)),
        "descriptors": f"<ul>{described}</ul>" if described else "",
        "first": escape(first),
        "second": escape(second),
        "rows": "\n".join(rows[:MAX_ROWS]),
        "footer": escape(f"usbip-capture {__version__}. Equal transfers far from a difference are left out.{left_out}"),
    }
    page = (resources.files("usbip_capture.comparing") / "page.html").read_text(encoding="utf-8")
    # One pass: what was put in is not looked at again.
    return _TOKEN.sub(lambda found: parts[found[1]], page)


def _begin(exchanges: list[Exchange | None]) -> int:
    return min((one.time_ns for one in exchanges if one is not None), default=0)


def _rows(pairs: list[Pair], begin: tuple[int, int]) -> Iterator[str]:
    near = [False] * len(pairs)
    for place, pair in enumerate(pairs):
        if pair.differences:
            for other in range(max(place - _AROUND, 0), min(place + _AROUND + 1, len(pairs))):
                near[other] = True
    skipped = 0
    for place, pair in enumerate(pairs):
        if not near[place]:
            skipped += 1
            continue
        if skipped:
            yield _gap(skipped)
            skipped = 0
        yield _row(pair, begin)
    if skipped:
        yield _gap(skipped)


def _gap(count: int) -> str:
    return f'<tr><td colspan="7" class="quiet">{count} equal</td></tr>'


def _row(pair: Pair, begin: tuple[int, int]) -> str:
    cells = _cells(pair.first, begin[0]) + _cells(pair.second, begin[1])
    how = "<br>".join(escape(one.text) for one in pair.differences)
    differs = ' class="differs"' if pair.differences else ""
    return f'<tr{differs}>{cells}<td class="how">{how}</td></tr>'


def _cells(exchange: Exchange | None, begin: int) -> str:
    if exchange is None:
        return '<td class="only" colspan="3"></td>'
    seconds = f"{(exchange.time_ns - begin) * _NANO:.6f}"
    asked = f"<code>{escape(str(exchange))}</code>"
    return f'<td class="at">{exchange.number}</td><td class="at">{seconds}</td><td>{asked}</td>'
