"""From a file to its statistics."""

from __future__ import annotations

import os
from dataclasses import dataclass

from usbip_capture.errors import CaptureError
from usbip_capture.filters.language import parse
from usbip_capture.recordings.link_types import UPPER_PDU, is_usb, link_type_name, may_hold_tcp
from usbip_capture.recordings.reading import Capture, open_capture
from usbip_capture.report.runs import Runs
from usbip_capture.report.statistics import Statistics


@dataclass(slots=True)
class Measured:
    """A capture's statistics. problem: why its rest is not in them; None if it was read to its end."""

    name: str
    statistics: Statistics
    problem: CaptureError | None


def measure(path: str | os.PathLike[str], capture_filter: str = "") -> Measured:
    """Read a capture to its end, or until Ctrl-C; `-` is standard input. Memory does not grow with it.

    Raises FilterError, and CaptureError if it holds neither URBs nor log lines. A truncated capture is reported up to
    where reading failed.
    """
    parsed = parse(capture_filter)
    statistics = Statistics(parsed)
    runs = Runs(statistics)
    with open_capture(path, runs.take if parsed is None else None) as capture:
        problem = _read(capture, statistics)
        runs.finish()
        for interface in capture.interfaces:
            statistics.see(interface)
        statistics.finish()
        _check(capture, problem)
        return Measured(capture.name, statistics, problem)


def _read(capture: Capture, statistics: Statistics) -> CaptureError | None:
    add = statistics.add
    try:
        for packet in capture.packets:
            add(packet)
    except CaptureError as error:
        return error
    except KeyboardInterrupt:
        pass  # a live capture has been watched long enough
    return None


def _check(capture: Capture, problem: CaptureError | None) -> None:
    if not capture.interfaces:
        raise problem or CaptureError(f"{capture.name} is empty: it has no interface")
    link_types = dict.fromkeys(interface.link_type for interface in capture.interfaces)
    if any(is_usb(link_type) or link_type == UPPER_PDU for link_type in link_types):
        return
    kinds = "; ".join([link_type_name(link_type) for link_type in link_types][:5])
    hint = ""
    if any(may_hold_tcp(link_type) for link_type in link_types):
        hint = "; if USB/IP on TCP is in it, 'usbip-capture convert' makes a capture of USB of it"
    raise CaptureError(f"{capture.name} has nothing of USB: {kinds}{hint}")
