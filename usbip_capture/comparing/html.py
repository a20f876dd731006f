"""A comparison as one page that needs nothing else: both sessions side by side on one time line."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from itertools import islice

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
    found = _rows(comparison.pairs, comparison.begins)
    rows = list(islice(found, MAX_ROWS))
    more = sum(1 for _ in found)
    left_out = f" {more} further rows are left out." if more else ""
    described = "".join(f"<li>{escape(one.text)}</li>" for one in comparison.descriptors)
    parts = {
        "title": escape(f"{first} and {second}"),
        "summary": escape(summary(comparison)),
        "descriptors": f"<ul>{described}</ul>" if described else "",
        "first": escape(first),
        "second": escape(second),
        "rows": "\n".join(rows),
        "footer": escape(f"usbip-capture {__version__}. Equal transfers far from a difference are left out.{left_out}"),
    }
    page = (resources.files("usbip_capture.comparing") / "page.html").read_text(encoding="utf-8")
    # One pass: what was put in is not looked at again.
    return _TOKEN.sub(lambda found: parts[found[1]], page)


def _rows(pairs: Iterable[Pair], begin: tuple[int, int]) -> Iterator[str]:
    before: deque[Pair] = deque()  # equal ones: they are shown if a difference follows
    after = skipped = 0
    for pair in pairs:
        if pair.differences:
            if skipped:
                yield _gap(skipped)
            yield from (_row(one, begin) for one in before)
            before.clear()
            skipped, after = 0, _AROUND
            yield _row(pair, begin)
        elif after:
            after -= 1
            yield _row(pair, begin)
        else:
            before.append(pair)
            if len(before) > _AROUND:
                before.popleft()
                skipped += 1
    if skipped + len(before):
        yield _gap(skipped + len(before))


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
