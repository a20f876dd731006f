"""IN transfers that stay in flight on an endpoint, so that nothing is lost between two of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.host.transfers import in_urb
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.status import EPROTO
from usbip_capture.usb.urb import Completion

log = logging.getLogger(__name__)


class InTransfers:
    """Up to `depth` transfers of `size` bytes each in flight on `endpoint`, which are submitted by `fill`.

    completed: called with the size of a transfer, how it ended, and the seconds that it took, on the thread that reads
    for the device; calls `fill` if there may be more.
    """

    def __init__(
        self,
        device: Device,
        endpoint: Endpoint,
        size: int,
        depth: int,
        completed: Callable[[int, Completion, float], None],
    ) -> None:
        self.endpoint = endpoint
        self.size = size
        self._depth = depth
        self._device = device
        self._completed = completed
        self._flying: set[Transfer] = set()
        self._ended = False
        self._lock = threading.Lock()
        self._filling = threading.local()

    def fill(self) -> None:
        """Submit as many as are missing.

        A device may finish a transfer before `submit` returns, and `completed` calls this again: a loop, no recursion.
        """
        filling = self._filling
        filling.again = True
        if getattr(filling, "here", False):
            return
        filling.here = True
        try:
            while filling.again:
                filling.again = False
                for transfer in self._missing():
                    self._submit(transfer)
        finally:
            filling.here = False

    def halve(self, size: int) -> bool:
        """The server does not take `size` bytes: use half from now on. False if that is less than a packet."""
        if size <= self.endpoint.packet_size:
            return False
        if size == self.size:  # the first of those in flight to end so
            self.size = max(size // 2, self.endpoint.packet_size)
        return True

    def cancel(self) -> None:
        """Cancel what is in flight, without waiting for it."""
        with self._lock:
            flying = list(self._flying)
        for transfer in flying:
            self._device.cancel(transfer)

    def end(self) -> list[Transfer]:
        """Submit nothing more; what is still in flight, for the caller to cancel."""
        with self._lock:
            self._ended = True
            return list(self._flying)

    def _missing(self) -> list[Transfer]:
        with self._lock:
            count = 0 if self._ended else self._depth - len(self._flying)
            made = [self._transfer(self.size) for _ in range(count)]
            self._flying.update(made)
        return made

    def _transfer(self, size: int) -> Transfer:
        start = time.monotonic()

        def done(completion: Completion) -> None:
            with self._lock:
                self._flying.discard(transfer)
            self._completed(size, completion, time.monotonic() - start)

        transfer = Transfer(in_urb(self.endpoint, size), done)
        return transfer

    def _submit(self, transfer: Transfer) -> None:
        try:
            self._device.submit(transfer)
        except Exception:
            log.exception("%s: %r could not be submitted", self._device.info, transfer.urb)
            transfer.finish(Completion(-EPROTO))
