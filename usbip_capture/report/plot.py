"""Throughput over time, drawn in the terminal: a panel for each endpoint that moves most."""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.report.statistics import EndpointTotals, Statistics, endpoint_name
from usbip_capture.report.timeline import BYTES, Series, Timeline
from usbip_capture.report.units import duration, rate
from usbip_capture.system.shown import one_line

MAX_PANELS = 6
_ROWS = 3
# A character has 2 dots side by side and 4 above each other. Ref: Unicode, Braille patterns
_DOTS_ACROSS = 2
_DOTS_DOWN = 4
_MARGIN = 12
_LEAST_WIDTH = 40
_MOST_WIDTH = 160
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
_NANOSECONDS = 1e9
_NO_DOTS = "\u2800"


def throughput_plot(statistics: Statistics, width: int, *, colour: bool) -> list[str]:
    """Lines of at most `width` characters; none if nothing was moved, or all of it at one moment."""
    timeline = statistics.timeline
    moving = [e for totals in statistics.interfaces.values() for e in totals.endpoints.values() if e.bytes and e.series]
    slices = timeline.last - timeline.first + 1
    if not moving or slices < 2:
        return []
    columns = min(max(width, _LEAST_WIDTH), _MOST_WIDTH) - _MARGIN - 2
    shown = sorted(moving, key=lambda endpoint: -endpoint.bytes)[:MAX_PANELS]
    several = len({endpoint.device for endpoint in moving}) > 1
    lines = ["throughput over time"]
    for endpoint, colour_name in zip(shown, _COLOURS, strict=False):
        lines += ["", *_panel(endpoint, timeline, columns, colour_name if colour else None, several)]
    lines += _time_axis(slices * timeline.width_ns, columns)
    if len(moving) > len(shown):
        lines.append(f"{len(moving) - len(shown)} more endpoints moved less")
    return lines


def rates(series: Series, timeline: Timeline, points: int) -> list[float]:
    """Bytes a second of a series, in `points` equal parts of the whole time line."""
    slices = timeline.last - timeline.first + 1
    found = []
    for point in range(points):
        start = timeline.first + point * slices // points
        end = max(start + 1, timeline.first + (point + 1) * slices // points)
        moved = sum(series[number][BYTES] for number in range(start, end) if number in series)
        found.append(moved * _NANOSECONDS / ((end - start) * timeline.width_ns))
    return found


def _panel(endpoint: EndpointTotals, timeline: Timeline, columns: int, colour: str | None, several: bool) -> list[str]:
    values = rates(endpoint.series, timeline, columns * _DOTS_ACROSS)
    peak = max(values)
    whole_ns = (timeline.last - timeline.first + 1) * timeline.width_ns
    mean = endpoint.bytes * _NANOSECONDS / whole_ns
    device = f"{one_line(endpoint.device.name)} " if several else ""
    title = f"{device}{endpoint_name(endpoint.transfer_type, endpoint.address)}: mean {rate(mean)}"
    rows = _drawn(values, peak, columns, colour)
    labels = [rate(peak), *[""] * (_ROWS - 2), "0"]
    axis = [f"{label:>{_MARGIN - 1}} ┤{row}" for label, row in zip(labels, rows, strict=True)]
    return [" " * (_MARGIN + 1) + title, *axis]


def _drawn(values: Sequence[float], peak: float, columns: int, colour: str | None) -> list[str]:
    # Not needed, and not loaded, for anything but plots.
    from plotille import Canvas

    height = _ROWS * _DOTS_DOWN
    canvas = Canvas(columns, _ROWS, xmin=0, ymin=0, xmax=columns * _DOTS_ACROSS, ymax=height)
    for at, value in enumerate(values):
        dots = round(value / peak * height) if peak else 0
        if value and not dots:
            dots = 1  # little, but not nothing
        if dots:
            canvas.line(at, 0, at, dots - 1, color=colour)
    return [row.replace(_NO_DOTS, " ").rstrip() for row in str(canvas.plot()).splitlines()]


def _time_axis(whole_ns: int, columns: int) -> list[str]:
    """Ticks at the beginning, the middle and the end."""
    middle = columns // 2
    line = "└" + "─" * middle + "┴" + "─" * (columns - middle - 2) + "┘"
    start, half, end = "0", duration(whole_ns / 2), duration(whole_ns)
    labels = start + half.center(2 * (middle - len(start) + 1))[: columns - len(start) - len(end)]
    return [" " * _MARGIN + line, " " * (_MARGIN + 1) + labels.ljust(columns - len(end)) + end]
