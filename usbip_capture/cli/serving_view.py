"""The live view of `serve`: a line for each device, who has it and what passes, again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from usbip_capture.cli.standing import LiveLines
from usbip_capture.cli.terminal import DIM
from usbip_capture.net.address import format_address
from usbip_capture.report.units import count, rate
from usbip_capture.system.shown import one_line

if TYPE_CHECKING:
    from usbip_capture.lending.lender import Exported
    from usbip_capture.server.client import Client
    from usbip_capture.serving.local_server import LocalServer

_TITLE = f"{'device':12} {'client':22} {'attached':>8} {'URB/s':>9} {'bytes':>10}"


class ServingView(LiveLines):
    """Shows a server."""

    def __init__(self, server: LocalServer) -> None:
        super().__init__()
        self._server = server
        self._before: dict[tuple[str, float], tuple[float, int, int]] = {}

    def show(self, now: float) -> None:
        """What has happened since the last call; now: of the monotonic clock."""
        rows = self.rows(now)
        clients = self._server.clients
        places = [*(format_address(*place) for place in self._server.addresses), one_line(self._server.unix)]
        title = f"{count(len(rows), 'device')} at {', '.join(filter(None, places))}, {count(len(clients), 'client')}"
        self.put(title, "Ctrl-C ends", _TITLE, rows)

    def rows(self, now: float) -> list[str]:
        """A line for each exported device."""
        users = {client.busid: client for client in self._server.clients if client.busid}
        before, self._before = self._before, {}
        return [self._row(exported, users.get(exported.info.busid), before, now) for exported in self._server.exported]

    def _row(
        self,
        exported: Exported,
        client: Client | None,
        before: dict[tuple[str, float], tuple[float, int, int]],
        now: float,
    ) -> str:
        busid, product = exported.info.busid, one_line(exported.product)
        if client is None:
            return f"{one_line(busid):12} {self._paint(DIM, f'{chr(45):22}')} {'':8} {'':9} {'':10}  {product}"
        key = client.busid, client.imported
        then, urbs, moved = before.get(key, (now - 1.0, client.urbs, client.bytes))
        self._before[key] = now, client.urbs, client.bytes
        seconds = max(now - then, 0.001)
        attached = _duration(time.time() - client.imported)
        return (
            f"{one_line(busid):12} {client.peer!s:22} {attached:>8} {(client.urbs - urbs) / seconds:9.1f} "
            f"{rate((client.bytes - moved) / seconds):>10}  {product}"
        )


def _duration(seconds: float) -> str:
    """As `0:42`, `1:00:42`."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
