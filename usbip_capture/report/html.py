"""Statistics as one HTML page that needs nothing else: tables, plots on one time line, and log lines below them."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from html import escape
from importlib import resources

from usbip_capture import __version__
from usbip_capture.report.log import Log, LogLine
from usbip_capture.report.measure import Measured
from usbip_capture.report.statistics import EndpointTotals, InterfaceTotals, Statistics, endpoint_name
from usbip_capture.report.text import (
    COLUMNS,
    TIMES,
    TIMES_HEADING,
    device_title,
    endpoint_row,
    endpoints_by_device,
    interface_counts,
    interface_title,
)
from usbip_capture.report.timeline import Timeline
from usbip_capture.report.units import count, duration
from usbip_capture.usb.urb import TransferType

#: Endpoints in the plots, those with most URBs; the tables have all.
MAX_PLOTTED = 12
_ERRORS = COLUMNS.index("errors")
_TOKEN = re.compile(r"\{\{(\w+)\}\}")
_NANOSECONDS = 1e9
#: Furthest time that has a date, in ns.
_LAST_DATE_NS = 253_402_300_799 * 10**9


def html_page(measured: Measured) -> str:
    """The page. Nothing from the capture becomes markup."""
    statistics = measured.statistics
    parts = {
        "title": escape(measured.name.rpartition("/")[2]),
        "facts": escape(_facts(measured)),
        "problem": f'<p class="problem">{escape(str(measured.problem))}</p>' if measured.problem else "",
        "tables": "\n".join(_tables(totals) for totals in statistics.interfaces.values()),
        "footer": escape(
            f"usbip-capture {__version__}. Median and p99 are within 1 %. Completion times are those of URBs that came "
            "back by themselves. Plots: uPlot 1.6.32, MIT licence, © Leon Sorokin."
        ),
        # Inside a script element only "<" could end it, or begin a comment.
        "data": json.dumps(_data(statistics), separators=(",", ":")).replace("<", "\\u003c"),
        "plot_css": _asset("uPlot.min.css"),
        "plot_js": f"/* {_asset('uPlot.LICENSE')} */\n{_asset('uPlot.iife.min.js')}",
        "page_css": _asset("page.css"),
        "page_js": _asset("page.js"),
    }
    # One pass: what was put in is not looked at again.
    return _TOKEN.sub(lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (resources.files("usbip_capture.report") / "assets" / name).read_text(encoding="utf-8")


def _facts(measured: Measured) -> str:
    """Packets, length and beginning of the capture."""
    all_totals = list(measured.statistics.interfaces.values())
    starts = [totals.first_ns for totals in all_totals if totals.first_ns]
    ends = [totals.last_ns for totals in all_totals if totals.last_ns]
    facts = [count(sum(totals.packets for totals in all_totals), "packet")]
    if starts:
        facts.append(duration(max(ends) - min(starts)))
        if 0 < min(starts) < _LAST_DATE_NS:
            begun = datetime.fromtimestamp(min(starts) // 10**9, timezone.utc)
            facts.append(f"begun {begun:%Y-%m-%d %H:%M:%S} UTC")
    if measured.statistics.filtered:
        facts.append(f"{count(measured.statistics.filtered, 'URB')} left out by the filter")
    return ", ".join(facts)


def _tables(totals: InterfaceTotals) -> str:
    parts = [f'<h3>{escape(interface_title(totals))}</h3><p class="counts">{escape(interface_counts(totals))}</p>']
    before = COLUMNS.index(TIMES[0])
    head = f'<tr><td colspan="{before}"></td><th colspan="{len(TIMES)}">{TIMES_HEADING}</th><td></td></tr>'
    head += "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in COLUMNS) + "</tr>"
    for device, endpoints in endpoints_by_device(totals):
        rows = "".join(f"<tr>{_cells(endpoint)}</tr>" for endpoint in endpoints)
        table = f'<div class="table"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        parts.append(f"<h4>{escape(device_title(device))}</h4>{table}")
    parts += [f"<p>{escape(comment)}</p>" for comment in totals.interface.comments]
    return "\n".join(parts)


def _cells(endpoint: EndpointTotals) -> str:
    cells = []
    for column, text in enumerate(endpoint_row(endpoint)):
        bad = ' class="bad"' if column == _ERRORS and endpoint.errors else ""
        cells.append(f"<td{bad}>{escape(text)}</td>")
    return "".join(cells)


def _data(statistics: Statistics) -> dict[str, object]:
    """What the plots are made of. Times in seconds from the beginning of the first slice, those in cells in ns."""
    timeline = statistics.timeline
    totals = [endpoint for found in statistics.interfaces.values() for endpoint in found.endpoints.values()]
    plotted = sorted((endpoint for endpoint in totals if endpoint.series), key=lambda endpoint: -endpoint.urbs)
    lines, left_out = _lines(statistics.log, statistics.failures)
    return {
        "width": timeline.width_ns / _NANOSECONDS,
        "slices": timeline.last - timeline.first + 1 if plotted else 0,
        "endpoints": [_series(endpoint, timeline) for endpoint in plotted[:MAX_PLOTTED]],
        "lines": [_line(line, timeline) for line in lines],
        "left_out": left_out,
    }


def _series(endpoint: EndpointTotals, timeline: Timeline) -> dict[str, object]:
    times = endpoint.times
    summary = f"{count(endpoint.urbs, 'URB')}{f', median {duration(times.quantile(0.5))}' if times.count else ''}"
    return {
        "name": f"{endpoint.device.name} {endpoint_name(endpoint.transfer_type, endpoint.address)}",
        "summary": summary,
        "is_control": endpoint.transfer_type == TransferType.CONTROL,
        "cells": [[number - timeline.first, *cell] for number, cell in sorted(endpoint.series.items())],
    }


def _lines(log: Log, failures: Log) -> tuple[list[LogLine], int]:
    lines = sorted([*log, *failures], key=lambda line: line.timestamp_ns)
    return lines, log.left_out + failures.left_out


def _line(line: LogLine, timeline: Timeline) -> list[object]:
    seconds = (line.timestamp_ns - timeline.first * timeline.width_ns) / _NANOSECONDS
    return [round(seconds, 6), line.source, line.severity, line.text]
