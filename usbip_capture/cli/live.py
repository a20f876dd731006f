"""The live view of a capture: a line for each device and endpoint, again and again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from usbip_capture.capture.meter import Count, Meter
from usbip_capture.cli.standing import LiveLines
from usbip_capture.cli.terminal import RED
from usbip_capture.report.units import count
from usbip_capture.system.shown import one_line
from usbip_capture.usb.status import status_name

if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.device import Device
    from usbip_capture.live.joining import JoinedCapture
    from usbip_capture.server_stream.capture import StreamedCapture

_TITLE = f"{'device':12} {'endpoint':9} {'URB/s':>9} {'MB/s':>9} {'errors':>7}  last status"


class LiveView(LiveLines):
    """Counts what sessions do with their devices, and shows it."""

    def __init__(self) -> None:
        super().__init__()
        self._meters: dict[str, Meter] = {}
        self._lock = threading.Lock()
        self._before: dict[tuple[str, int], Count] = {}

    def observe(self, device: Device) -> Device:
        """`device` with its URBs counted; one that comes back goes on with the counts it had."""
        from usbip_capture.tap import Tapped

        with self._lock:
            meter = self._meters.setdefault(device.info.busid, Meter())
        return Tapped(device, meter)

    def show(self, seconds: float, elapsed: float, writer: PcapWriter | JoinedCapture | StreamedCapture) -> None:
        """What happened in the last `seconds`, `elapsed` seconds after the beginning."""
        rows = self.rows(seconds)
        title = f"{elapsed:.0f} s, {count(writer.written, 'packet')}, {writer.dropped} dropped"
        self.put(title, "Ctrl-C stops", _TITLE, rows)

    def rows(self, seconds: float) -> list[str]:
        """A line for each endpoint, with what happened since the last call, `seconds` ago."""
        with self._lock:
            meters = sorted(self._meters.items())
        rows = []
        for busid, meter in meters:
            for address, now in meter.counts().items():
                before = self._before.get((busid, address), Count())
                self._before[busid, address] = now
                rows.append(self._row(busid, address, now, before, max(seconds, 0.001)))
        return rows

    def _row(self, busid: str, address: int, count: Count, before: Count, seconds: float) -> str:
        where = "control" if not address else f"{address:#04x} {'IN' if address & 0x80 else 'OUT'}"
        urbs = (count.urbs - before.urbs) / seconds
        megabytes = (count.bytes - before.bytes) / seconds / 1e6
        errors = f"{count.errors:7d}"
        coloured = self._paint(RED, errors) if count.errors > before.errors else errors
        return f"{one_line(busid):12} {where:9} {urbs:9.1f} {megabytes:9.3f} {coloured}  {status_name(count.status)}"
