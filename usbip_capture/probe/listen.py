"""Listening: the IN endpoints of a configured device are read until stopped, several URBs in flight on each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.pyusb_backend.handle import in_urb
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.setup import clear_halt
from usbip_capture.usb.status import EPIPE, GONE, TIMED_OUT, TOO_LARGE, UNLINKED, status_name
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

log = logging.getLogger(__name__)

_MASS_STORAGE = 0x08
#: Errors in a row after which an endpoint is left alone.
MAX_ERRORS = 5
_BULK_BYTES = 16 << 10
_BULK_URBS = 4
_INTERRUPT_URBS = 2
_ISO_URBS = 4
#: An isochronous URB lasts about this long, in frames or microframes.
_ISO_PERIOD = 32


def listens_to(endpoint: Endpoint) -> bool:
    """IN endpoints, but not bulk IN of mass storage: that one waits for a command, and a read disturbs the next."""
    if not endpoint.address & DIR_IN or endpoint.transfer_type == TransferType.CONTROL:
        return False
    return endpoint.transfer_type != TransferType.BULK or endpoint.bInterfaceClass != _MASS_STORAGE


class Listener:
    """Keeps IN transfers of a device in flight. `note` gets a sentence when an endpoint has to be given up."""

    def __init__(self, device: Device, endpoints: list[Endpoint], note: Callable[[str], None]) -> None:
        self._device = device
        self._note = note
        self._lock = threading.Lock()
        self._pending: set[Transfer] = set()
        self._idle = threading.Event()
        self._idle.set()
        self._stopping = False
        self._readers = [EndpointReader(self, endpoint) for endpoint in endpoints if listens_to(endpoint)]

    def start(self) -> None:
        """Put the first URBs in flight."""
        for reader in self._readers:
            reader.start()

    def stop(self, timeout: float) -> None:
        """Take everything back; waits up to `timeout` seconds for the device to let go."""
        with self._lock:
            self._stopping = True
            pending = list(self._pending)
        for transfer in pending:
            self._device.cancel(transfer)
        if not self._idle.wait(timeout):
            for transfer in pending:
                self._device.abandon(transfer)

    def submit(self, urb: Urb, done: Callable[[Completion], None]) -> None:
        """Submit unless stopping; `done` runs on the thread that reads for the device."""

        def finished(completion: Completion) -> None:
            done(completion)
            with self._lock:
                self._pending.discard(transfer)
                if not self._pending:
                    self._idle.set()

        transfer = Transfer(urb, finished)
        with self._lock:
            if self._stopping:
                return
            self._pending.add(transfer)
            self._idle.clear()
        self._device.submit(transfer)

    def give_up(self, endpoint: Endpoint, status: int) -> None:
        """Say that an endpoint is not read any more."""
        text = f"endpoint {endpoint.address:#04x} is not read any more: {status_name(status)}"
        log.warning("%s: %s", self._device.info, text)
        self._note(text)


class EndpointReader:
    """The URBs in flight on one endpoint, and what to do when one fails."""

    def __init__(self, listener: Listener, endpoint: Endpoint) -> None:
        self._listener = listener
        self._endpoint = endpoint
        self._size, self._depth = _shape(endpoint)
        self._errors = 0
        self._stopped = False
        self._clearing = False
        self._parked = 0

    def start(self) -> None:
        """Fill the pipe."""
        for _ in range(self._depth):
            self._submit()

    def _submit(self) -> None:
        size = self._size
        self._listener.submit(in_urb(self._endpoint, size), lambda completion: self._done(size, completion))

    def _done(self, size: int, completion: Completion) -> None:
        status = completion.status
        if status == 0 or status in TIMED_OUT:      # bridges end an idle read after a while
            self._errors = 0
            self._submit()
        elif self._stopped or status in GONE or status in UNLINKED:
            pass
        elif status in TOO_LARGE and size > self._endpoint.packet_size:
            if size == self._size:      # the first of those in flight to say so
                self._size = max(size // 2, self._endpoint.packet_size)
            self._submit()
        else:
            self._failed(status)

    def _failed(self, status: int) -> None:
        self._errors += 1
        if self._errors > MAX_ERRORS:
            self._stopped = True
            self._listener.give_up(self._endpoint, status)
        elif status == -EPIPE:
            self._parked += 1
            if not self._clearing:
                self._clearing = True
                setup = clear_halt(self._endpoint.address).pack()
                self._listener.submit(Urb.control(setup), self._cleared)
        else:
            self._submit()

    def _cleared(self, completion: Completion) -> None:
        self._clearing = False
        parked, self._parked = self._parked, 0
        if completion.status == 0:
            for _ in range(parked):
                self._submit()
        elif completion.status not in GONE and completion.status not in UNLINKED:
            self._stopped = True
            self._listener.give_up(self._endpoint, completion.status)


def _shape(endpoint: Endpoint) -> tuple[int, int]:
    """Bytes of each URB, and how many of them are in flight."""
    packet = max(endpoint.packet_size, 1)
    if endpoint.transfer_type == TransferType.BULK:
        return max(_BULK_BYTES // packet, 1) * packet, _BULK_URBS
    if endpoint.transfer_type == TransferType.INTERRUPT:
        return packet, _INTERRUPT_URBS
    return packet * min(max(_ISO_PERIOD // max(endpoint.interval, 1), 8), 64), _ISO_URBS
