"""A device with a longer way to it: each transfer takes its time there and back, and their order stays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from usbip_capture.device import Device, Transfer
from usbip_capture.system.forks import disown_in_children
from usbip_capture.system.timetable import Timetable
from usbip_capture.usb.status import ECONNRESET, EPROTO, ESHUTDOWN
from usbip_capture.usb.urb import Completion

log = logging.getLogger(__name__)


class Delayed(Device):
    """`inner`, `latency` seconds away and back: half of it before a transfer is there, half until it is known."""

    def __init__(self, inner: Device, latency: float) -> None:
        self.info = inner.info
        self._inner = inner
        self._way = latency / 2
        self._timetable = Timetable(f"delay-{inner.info.busid}")
        self._lock = threading.Lock()
        self._pending: dict[Transfer, Transfer] = {}  # the caller's -> ours
        self._closed = False
        disown_in_children(self)

    def forked(self) -> None:
        """In a child process: what is on its way stays its parent's; the lock may have been held."""
        self._lock = threading.Lock()
        self._pending.clear()

    @property
    def alive(self) -> bool:
        return self._inner.alive and not self._closed

    def submit(self, transfer: Transfer) -> None:
        ours = Transfer(transfer.urb, lambda completion: self._back(transfer, completion), awaited=False)
        with self._lock:
            closed = self._closed
            if not closed:
                self._pending[transfer] = ours
        if closed:
            transfer.finish(Completion(-ESHUTDOWN))
            return
        self._later(partial(self._there, transfer, ours))

    def cancel(self, transfer: Transfer) -> None:
        with self._lock:
            ours = self._pending.get(transfer)
        if ours is not None:
            self._later(partial(self._inner.cancel, ours))

    def abandon(self, transfer: Transfer) -> None:
        self._finish(transfer, Completion(-ECONNRESET))

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self._inner.watch(on_lost)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._timetable.close()
        self._inner.close()
        with self._lock:
            left = list(self._pending)
        for transfer in left:
            self._finish(transfer, Completion(-ECONNRESET))

    def _there(self, transfer: Transfer, ours: Transfer) -> None:
        try:
            self._inner.submit(ours)
        except Exception:
            log.exception("%s: %r could not be submitted", self.info, transfer.urb)
            self._finish(transfer, Completion(-EPROTO))

    def _back(self, transfer: Transfer, completion: Completion) -> None:
        self._later(partial(self._finish, transfer, completion))

    def _later(self, action: Callable[[], None]) -> None:
        try:
            self._timetable.after(self._way, action)
        except RuntimeError:  # no thread to be had: rather too early than never
            action()

    def _finish(self, transfer: Transfer, completion: Completion) -> None:
        with self._lock:
            if self._pending.pop(transfer, None) is None:
                return
        transfer.finish(completion)
