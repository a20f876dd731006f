"""IN transfers that stay in flight, so that nothing is lost between two reads of the program."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from usbip_capture.device import Device
from usbip_capture.host.in_transfers import InTransfers
from usbip_capture.serial_port.controls import send_clear_halt
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.status import EPIPE, EPROTO, GONE, TIMED_OUT, TOO_LARGE, UNLINKED, status_name
from usbip_capture.usb.urb import Completion

log = logging.getLogger(__name__)

#: Errors in a row after which an endpoint is given up.
_PATIENCE = 16


class InStream:
    """Keeps `depth` transfers of up to `size` bytes on an IN endpoint. Made for one import of the device.

    receive: called with what each brought, on the device's thread, and returns whether there may be more for now; else
    call `resume`. on_end: called once with the reason, when the endpoint cannot be read any more.
    """

    def __init__(
        self,
        device: Device,
        endpoint: Endpoint,
        size: int,
        depth: int,
        receive: Callable[[bytes], bool],
        on_end: Callable[[str], None],
    ) -> None:
        self._device = device
        self._endpoint = endpoint
        self._receive = receive
        self._on_end = on_end
        self._transfers = InTransfers(device, endpoint, size, depth, self._done)
        self._errors = 0
        self._ended = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Submit the first transfers."""
        self._transfers.fill()

    def resume(self) -> None:
        """There is room again."""
        self._transfers.fill()

    def stop(self) -> None:
        """Cancel what is in flight; nothing is received afterwards."""
        with self._lock:
            self._ended = True
        for transfer in self._transfers.end():
            self._device.cancel(transfer)

    def _done(self, size: int, completion: Completion, seconds: float) -> None:
        with self._lock:
            if self._ended:
                return
        status = completion.status
        try:
            more = self._receive(bytes(completion.data)) if completion.data else True
        except Exception:  # else the endpoint would be read by one transfer less
            log.exception("%s: what endpoint %#04x sent", self._device.info, self._endpoint.address)
            more, status = True, status or -EPROTO
        if status and not self._bear(size, status):
            return
        if not status:
            self._errors = 0
        if more:
            self._transfers.fill()

    def _bear(self, size: int, status: int) -> bool:
        """Whether to go on after a transfer that failed."""
        if status in TIMED_OUT or status in UNLINKED:
            return not self._gives_up(status)  # bridges put an end to transfers that take long
        if status in TOO_LARGE and self._transfers.halve(size):
            return True
        if status in GONE:
            self._end(f"device {self._device.info} is gone")
            return False
        if self._gives_up(status):
            return False
        if status == -EPIPE:
            send_clear_halt(self._device, self._endpoint.address)
        log.info("%s: endpoint %#04x: %s", self._device.info, self._endpoint.address, status_name(status))
        return True

    def _gives_up(self, status: int) -> bool:
        if status in TIMED_OUT:
            return False
        self._errors += 1
        if self._errors < _PATIENCE:
            return False
        address = self._endpoint.address
        self._end(f"endpoint {address:#04x} of device {self._device.info} fails: {status_name(status)}")
        return True

    def _end(self, reason: str) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._transfers.end()
        self._on_end(reason)
