"""`usbip-capture stats --live`: what others do at a server with a dashboard, counted while it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from queue import Empty, Full, Queue

from usbip_capture.capture.sinks import Sink, SinkAborted
from usbip_capture.cli.standing import LiveLines
from usbip_capture.cli.terminal import Waiting, is_terminal
from usbip_capture.errors import CaptureError
from usbip_capture.filters.language import parse
from usbip_capture.recordings.packets import Interface
from usbip_capture.recordings.reading import read_packets
from usbip_capture.recordings.stream import Stream
from usbip_capture.report.measure import Measured
from usbip_capture.report.statistics import EndpointTotals, Statistics, endpoint_name
from usbip_capture.report.text import endpoints_by_device
from usbip_capture.report.units import count, duration
from usbip_capture.server_stream.capture import StreamedCapture, Wanted
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.system.shown import one_line
from usbip_capture.usb.urb import Buffer

#: Seconds between two looks of a person, and portions that wait to be counted.
_PERIOD, _MAX_PORTIONS = 1.0, 64
_ABORT_CHECK = 0.1
_TITLE = f"{'device':12} {'endpoint':16} {'URB/s':>9} {'MB/s':>9} {'errors':>7} {'median':>9}"


def measure_live(dashboard: Dashboard, capture_filter: str, seconds: float) -> Measured:
    """Count until Ctrl-C, or for so many `seconds` if they are not 0. Raises UsbipError."""
    portions = _Portions(str(dashboard))
    parse(capture_filter)
    with Waiting(f"connecting to {dashboard}"):
        capture = StreamedCapture(dashboard, lambda: portions, Wanted(capture_filter=capture_filter))
    live = _Live(portions, seconds)
    try:
        live.run()
    finally:
        portions.abort()
        capture.close()
    return Measured(str(dashboard), live.statistics, live.problem)


class _Portions(Sink):
    """What is captured, for who counts it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._waiting: Queue[bytes] = Queue(_MAX_PORTIONS)

    def write(self, buffers: Sequence[Buffer]) -> None:
        portion = b"".join(buffers)
        while not self._aborted:
            try:
                self._waiting.put(portion, timeout=_ABORT_CHECK)
            except Full:
                continue
            self.written += len(portion)
            return
        raise SinkAborted("nobody counts any more")

    def close(self) -> None:
        """Nothing is open."""

    def next(self, timeout: float) -> bytes:
        """The next portion. Raises Empty if there is none in time."""
        return self._waiting.get(timeout=max(timeout, 0.0))


class _Live:
    """Counts, and shows it on a terminal. problem: why the rest is not counted."""

    def __init__(self, portions: _Portions, seconds: float) -> None:
        self.statistics = Statistics()
        self.problem: CaptureError | None = None
        self._portions = portions
        self._started = self._shown = time.monotonic()
        self._until = self._started + seconds if seconds else float("inf")
        self._view = LiveLines() if is_terminal(sys.stderr) else None
        self._before: dict[EndpointTotals, tuple[int, int]] = {}
        self._packets = 0

    def run(self) -> None:
        """Until it is time, or Ctrl-C."""
        interfaces: list[Interface] = []
        with self._view or nullcontext():
            try:
                for packet in read_packets(Stream(self._portions.name, self._read), interfaces):
                    self.statistics.add(packet)
                    self._packets += 1
            except CaptureError as error:
                self.problem = error if interfaces else None
            except KeyboardInterrupt:
                pass
        for interface in interfaces:
            self.statistics.see(interface)
        self.statistics.finish()

    def _read(self) -> bytes:
        """What came next; nothing once it is time."""
        while True:
            now = time.monotonic()
            if now >= self._until:
                return b""
            if now - self._shown >= _PERIOD:
                self._show(now)
            try:
                return self._portions.next(min(self._shown + _PERIOD, self._until) - now)
            except Empty:
                continue

    def _show(self, now: float) -> None:
        seconds, self._shown = now - self._shown, now
        if self._view is None:
            return
        rows = [
            self._row(device.name, endpoint, seconds)
            for totals in self.statistics.interfaces.values()
            for device, endpoints in endpoints_by_device(totals)
            for endpoint in endpoints
        ]
        title = f"{self._portions.name}: {now - self._started:.0f} s, {count(self._packets, 'packet')}"
        self._view.put(one_line(title), "Ctrl-C stops", _TITLE, rows)

    def _row(self, device: str, endpoint: EndpointTotals, seconds: float) -> str:
        urbs, moved = self._before.get(endpoint, (0, 0))
        self._before[endpoint] = endpoint.urbs, endpoint.bytes
        rates = (endpoint.urbs - urbs) / seconds, (endpoint.bytes - moved) / seconds / 1e6
        median = duration(endpoint.times.quantile(0.5)) if endpoint.times.count else "-"
        where = endpoint_name(endpoint.transfer_type, endpoint.address)
        return f"{one_line(device):12} {where:16} {rates[0]:9.1f} {rates[1]:9.3f} {endpoint.errors:7d} {median:>9}"
