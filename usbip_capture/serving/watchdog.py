"""Looks after the threads that lent devices need: a device that is stuck costs its own client only."""

from __future__ import annotations

import logging
import threading
import time

from usbip_capture.device import Device
from usbip_capture.lending.lender import Lender
from usbip_capture.lending.plugged import Answering, Bus, Working
from usbip_capture.report.units import count
from usbip_capture.server.exporter import Server
from usbip_capture.system.service_notification import ALIVE, notify, watchdog_period

log = logging.getLogger(__name__)

#: Seconds between two looks, at most.
_INTERVAL = 2.0
#: Seconds that one request may keep a device's worker. The kernel gives a device 5 s for each.
STUCK = 10.0


class Watchdog:
    """Watches until closed.

    The service manager's watchdog is fed while the thread answers that all devices need: without it nothing can go
    on, and the process is better started again. A worker that is stuck is named, and its client disconnected.
    """

    def __init__(self, server: Server, lender: Lender, bus: Bus) -> None:
        self._server = server
        self._lender = lender
        self._bus = bus
        self._stuck: set[Device] = set()
        self._silent = False
        self._status = ""
        period = watchdog_period()
        self._interval = min(period / 4, _INTERVAL) if period else _INTERVAL
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usbip-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more. May be called again."""
        self._closing.set()
        self._thread.join(_INTERVAL)

    def look(self) -> None:
        """Once."""
        answers = not isinstance(self._bus, Answering) or self._bus.answers(self._interval)
        if answers:
            status = f"STATUS={count(len(self._lender.exported), 'device')}, {len(self._lender.opened)} in use"
            notify(ALIVE, *([status] if status != self._status else []))
            self._status = status
        elif not self._silent:
            log.error("libusb handles no events any more: no device goes on; end this program and start it again")
        self._silent = not answers
        self._end_stuck()

    def _end_stuck(self) -> None:
        now, opened = time.monotonic(), self._lender.opened
        self._stuck.intersection_update(opened)
        for device in opened:
            since = device.working_since if isinstance(device, Working) else 0.0
            if not since or now - since < STUCK or device in self._stuck:
                continue
            self._stuck.add(device)
            log.error("device %s has been stuck in one request for %.0f s: its client is disconnected, others go on",
                      device.info, now - since)  # fmt: skip
            self._server.disconnect(device.info.busid, "its device is stuck", "watchdog")

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            try:
                self.look()
            except Exception:
                log.exception("the watchdog cannot look")
