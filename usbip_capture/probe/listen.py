"""Listening: the IN endpoints of a configured device are read until stopped, several URBs in flight on each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.host.in_transfers import InTransfers
from usbip_capture.system.timetable import Timetable
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.setup import clear_halt
from usbip_capture.usb.status import EPIPE, EPROTO, GONE, TIMED_OUT, TOO_LARGE, UNLINKED, status_name
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

log = logging.getLogger(__name__)

_MASS_STORAGE = 0x08
#: Errors in a row, and seconds that they must have lasted, after which an endpoint is left alone.
MAX_ERRORS = 5
ERROR_TIME = 1.0
#: A completion without data that came faster than this, in seconds, is not followed by the next request at once.
_QUICK = 0.01
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1
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
    """Keeps IN transfers of a device in flight.

    note: gets a sentence when an endpoint has to be given up.
    on_gone: called when a URB reports that the device is gone, with its status; perhaps more than once.
    """

    def __init__(
        self,
        device: Device,
        endpoints: list[Endpoint],
        note: Callable[[str], None],
        on_gone: Callable[[int], None] = lambda status: None,
    ) -> None:
        self.on_gone = on_gone
        self.pauses = Timetable("usbip-pauses")
        self._device = device
        self._note = note
        self._readers = [EndpointReader(self, device, endpoint) for endpoint in endpoints if listens_to(endpoint)]

    @property
    def listening(self) -> list[int]:
        """Addresses of the endpoints that are read now."""
        return [reader.endpoint.address for reader in self._readers if reader.wanted]

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these endpoints (None: all that can be) and no others; may be called again while it does."""
        for reader in self._readers:
            if chosen is None or reader.endpoint.address in chosen:
                reader.start()
            else:
                reader.pause()

    def stop(self, timeout: float) -> None:
        """Unlink everything; waits up to `timeout` seconds for the device."""
        self.pauses.close(wait=False)
        self._device.unlink([transfer for reader in self._readers for transfer in reader.end()], timeout)

    def give_up(self, endpoint: Endpoint, status: int) -> None:
        """Report that an endpoint is not read any more."""
        text = f"endpoint {endpoint.address:#04x} is not read any more: {status_name(status)}"
        log.warning("%s: %s", self._device.info, text)
        self._note(text)


class EndpointReader:
    """What is read of one endpoint, and what to do when that fails. `wanted`: whether it is to be read now."""

    def __init__(self, listener: Listener, device: Device, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.wanted = False
        self._listener = listener
        self._device = device
        size, self._depth = _shape(endpoint)
        self._transfers = InTransfers(device, endpoint, size, self._depth, self._done)
        self._lock = threading.Lock()
        self._errors = 0
        self._failing_since = 0.0
        self._quiet = 0
        self._resting = False  # until `_resume`
        self._clearing: Transfer | None = None  # the request that clears the halt
        self._ended = False

    def start(self) -> None:
        """Fill the pipe."""
        if not self.wanted:
            self.wanted = True
            self._errors = 0
            self._fill()

    def pause(self) -> None:
        """Cancel everything, until `start`."""
        if self.wanted:
            self.wanted = False
            self._transfers.cancel()
            clearing = self._clearing
            if clearing is not None:
                self._device.cancel(clearing)

    def end(self) -> list[Transfer]:
        """Submit nothing more; what is still in flight."""
        with self._lock:
            self._ended = True
            clearing = [self._clearing] if self._clearing is not None else []
        return clearing + self._transfers.end()

    def _fill(self) -> None:
        if self.wanted and not self._resting and self._clearing is None:
            self._transfers.fill()

    def _done(self, size: int, completion: Completion, seconds: float) -> None:
        status = completion.status
        fine = status == 0 or status in TIMED_OUT  # bridges end an idle read after a while
        if completion.actual_length or (fine and seconds > _QUICK):
            self._quiet = 0
        if fine:
            self._errors = 0
            self._again(completion)
        elif status in GONE:
            self._listener.on_gone(status)
        elif not self.wanted or status in UNLINKED:
            self._fill()  # it may have been wanted again meanwhile
        elif status in TOO_LARGE and self._transfers.halve(size):
            self._fill()
        else:
            self._failed(completion)

    def _again(self, completion: Completion) -> None:
        """The next request: at once after data, a little later after more and more completions without."""
        if not completion.actual_length:
            self._quiet += 1
        if self._quiet <= self._depth:
            self._fill()
        else:
            pause = min(_SHORTEST_PAUSE * 2 ** min(self._quiet - self._depth - 1, 10), _LONGEST_PAUSE)
            with self._lock:
                resting, self._resting = self._resting, True
            if not resting:
                try:
                    self._listener.pauses.after(pause, self._resume)
                except RuntimeError:  # no thread to be had: go on without the pause
                    self._resume()

    def _resume(self) -> None:
        with self._lock:
            self._resting = False
        self._fill()

    def _failed(self, completion: Completion) -> None:
        now = time.monotonic()
        if not self._errors:
            self._failing_since = now
        self._errors += 1
        if self._errors > MAX_ERRORS and now - self._failing_since >= ERROR_TIME:
            self._give_up(completion.status)
        elif completion.status == -EPIPE:
            self._clear()
        else:
            self._again(completion)

    def _clear(self) -> None:
        """Clear the halt, unless that is under way."""
        request = Transfer(Urb.control(clear_halt(self.endpoint.address).pack()), self._cleared)
        with self._lock:
            if self._ended or self._clearing is not None:
                return
            self._clearing = request
        try:
            self._device.submit(request)
        except Exception:
            log.exception("%s: %r could not be submitted", self._device.info, request.urb)
            request.finish(Completion(-EPROTO))

    def _cleared(self, completion: Completion) -> None:
        self._clearing = None
        if completion.status == 0:
            self._quiet += 1
            self._again(completion)
        elif completion.status in GONE:
            self._listener.on_gone(completion.status)
        elif completion.status not in UNLINKED:
            self._give_up(completion.status)

    def _give_up(self, status: int) -> None:
        if self.wanted:
            self.wanted = False
            self._listener.give_up(self.endpoint, status)


def _shape(endpoint: Endpoint) -> tuple[int, int]:
    """Bytes of each URB, and how many of them are in flight."""
    packet = max(endpoint.packet_size, 1)
    if endpoint.transfer_type == TransferType.BULK:
        return max(_BULK_BYTES // packet, 1) * packet, _BULK_URBS
    if endpoint.transfer_type == TransferType.INTERRUPT:
        return packet, _INTERRUPT_URBS
    return packet * min(max(_ISO_PERIOD // max(endpoint.interval, 1), 8), 64), _ISO_URBS
