"""A device of this machine, opened by libusb."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from usbip_capture.device import Device, Transfer, Waiter
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.budget import Budget, usbfs_limit
from usbip_capture.devices.libusb.checks import control_refusal, refusal
from usbip_capture.devices.libusb.claims import Claims
from usbip_capture.devices.libusb.flights import Flight
from usbip_capture.devices.libusb.handle import Handle
from usbip_capture.devices.libusb.in_flight import InFlight
from usbip_capture.devices.libusb.requests import Requests
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.errors import DeviceNotFound
from usbip_capture.system.at_exit import AtExit
from usbip_capture.system.forks import Inheritance
from usbip_capture.usb.descriptors import ConfigurationDescriptor
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import classify
from usbip_capture.usb.status import ECONNRESET, EPROTO, ESHUTDOWN
from usbip_capture.usb.urb import TransferType

log = logging.getLogger(__name__)

#: Seconds for what was cancelled to come back: the kernel needs up to 0.13 s for an isochronous transfer.
PATIENCE = 3.0
#: The same for a device that is gone, whose transfers libusb ends by itself.
_GONE_PATIENCE = 1.0
#: Seconds between two attempts when other programs have all the memory of usbfs.
_TRY_AGAIN = 0.05

#: Of the process: usbfs has one limit for all.
shared_budget = Budget(usbfs_limit())


class LibusbDevice(Device):
    """unclaimed: the interfaces that somebody else holds, with who or why; their URBs end with -EPERM.

    reset: whether the device is reset when it is closed, as Linux's server does between two clients; `resets` can be
    changed until then. on_detaching, on_attached: see `Claims`. on_closed: called when all of it is released, from any
    thread. working_since: when the worker began with what it does now, on the monotonic clock; 0 while it waits.
    Raises DeviceNotFound when nothing of it can be had; `handle` is closed then.
    """

    def __init__(
        self,
        handle: Handle,
        info: DeviceInfo,
        configurations: Iterable[ConfigurationDescriptor],
        *,
        reset: bool = False,
        budget: Budget | None = None,
        on_detaching: Callable[[list[int]], None] = lambda interfaces: None,
        on_attached: Callable[[], None] = lambda: None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.info = info
        self.closed = False
        self._handle = handle
        self.resets = reset
        self._on_closed = on_closed
        self._lost = ""
        self._doubtful = False  # it may be gone
        self._busy = False  # the worker has something to do
        self.working_since = 0.0
        self._on_lost: Callable[[str], None] | None = None
        self._endpoints = EndpointMap(None, info.speed)
        for configuration in configurations:
            self._endpoints.add_configuration(configuration)
        self._claims = Claims(handle, str(info), on_detaching, on_attached)
        self._flights = InFlight(handle, budget or shared_budget, self._refusal, self._doubt)
        self._requests = Requests(handle, self._claims, self._endpoints, self._flights, self._doubt)
        self._worker = threading.Thread(target=self._work, name=f"libusb-{info.busid}", daemon=True)
        self._open()
        self._inheritance, self._at_exit = Inheritance(self.forked), AtExit(self.close)

    def _open(self) -> None:
        try:
            self.info = replace(self.info, bConfigurationValue=self._requests.learn())
            if self._claims.unclaimed and not self._claims.claimed:
                reasons = "; ".join(f"interface {n}: {why}" for n, why in self._claims.unclaimed.items())
                raise DeviceNotFound(f"device {self.info} is in use: {reasons}")
            self._worker.start()
        except (Failure, RuntimeError) as error:
            self._release()
            raise DeviceNotFound(f"device {self.info} cannot be used: {error}") from error
        except DeviceNotFound:
            self._release()
            raise

    @property
    def unclaimed(self) -> dict[int, str]:
        """Interface number -> who holds it."""
        return dict(self._claims.unclaimed)

    def forked(self) -> None:
        """In a child process: the device and what is in flight are the parent's."""
        self.closed = True
        self._flights.forked()

    # -- Device

    @property
    def alive(self) -> bool:
        return not self._lost and not self.closed

    @property
    def loss(self) -> str:
        return self._lost

    def watch(self, on_lost: Callable[[str], None]) -> None:
        with self._flights.lock:
            self._on_lost = on_lost
            lost = self._lost and not self.closed
        if lost:
            self._report_loss()

    def submit(self, transfer: Transfer) -> None:
        urb, flights = transfer.urb, self._flights
        # What changes something has no data stage of IN.
        action = classify(urb.setup) if urb.transfer_type == TransferType.CONTROL and not urb.endpoint else None
        flight = Flight(transfer, action)
        with flights.order:
            with flights.lock:
                flights.pending[transfer] = flight
                status: int | None = -ESHUTDOWN if self._lost or self.closed else None
                if status is None and (action is not None or self._busy or flights.jobs):
                    flights.jobs[flight] = None
                    flights.changed.notify_all()
                    return
            if status is None:
                status = flights.start(flight)
        if status is not None:
            flights.fail(flight, status)

    def afterwards(self, call: Callable[[], None]) -> bool:
        return self._handle.afterwards(call)

    def waiter(self, fileno: int) -> Waiter | None:
        return self._handle.waiter(fileno)

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        self._handle.leave_waiter()
        return super().wait(transfer, timeout)

    def cancel(self, transfer: Transfer) -> None:
        self._flights.cancel(transfer)

    def abandon(self, transfer: Transfer) -> None:
        self._flights.abandon(transfer)

    def close(self) -> None:
        flights = self._flights
        self._handle.leave_waiter()
        with flights.changed:
            first, self.closed = not self.closed, True
            self._on_lost = None  # whose owner has this device: a cycle
            flights.changed.notify_all()
        if first:
            flights.fail_queued(-ECONNRESET)
        if threading.current_thread() is self._worker or self._handle.on_event_thread:
            flights.abandon_all(-ECONNRESET)  # the rest is done without us
            return
        if not self._worker.is_alive():
            return
        self._worker.join(PATIENCE * 3)
        if self._worker.is_alive():
            log.warning("device %s does not come to an end; its kernel drivers are not bound yet", self.info)
            flights.abandon_all(-ECONNRESET)

    def lose(self) -> None:
        """The device was unplugged. Who watches learns of it when all that was in flight has ended."""
        with self._flights.changed:
            if self._lost or self.closed:
                return
            self._lost = f"device {self.info} was unplugged"
            self._doubtful = True  # the worker sees to what is in flight
            self._flights.changed.notify_all()
        self._flights.fail_queued(-ESHUTDOWN)

    def _report_loss(self) -> None:
        """Once, whoever comes first."""
        with self._flights.lock:
            on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            try:
                on_lost(self._lost)
            except Exception:
                log.exception("what was to be called when %s was lost failed", self.info)

    def _refusal(self, flight: Flight) -> int | None:
        urb = flight.urb
        if urb.transfer_type == TransferType.CONTROL:
            return control_refusal(urb, self._endpoints, self._claims)
        endpoint = self._endpoints.find(urb.endpoint)
        flight.interface = endpoint.bInterfaceNumber if endpoint is not None else -1
        return refusal(urb, endpoint, self._claims)

    def _doubt(self) -> None:
        """Is it gone? A reset or a release ends transfers with NO_DEVICE, too: the worker asks."""
        with self._flights.changed:
            self._doubtful = True
            self._flights.changed.notify_all()

    # -- the worker

    def _work(self) -> None:
        while self._worked():
            self.working_since = 0.0
        self.working_since = time.monotonic()
        self._release()
        self.working_since = 0.0

    def _worked(self) -> bool:
        """Do what is next, when there is something; False when the device was closed."""
        flights = self._flights
        with flights.changed:
            while not self._has_work():
                flights.changed.wait(_TRY_AGAIN if flights.starving else None)
                if flights.starving:
                    break
            closed = self.closed
            if closed:
                return False
            starving = not self._has_work()
            doubtful, self._doubtful = self._doubtful, False
            flight = flights.jobs.popitem(last=False)[0] if flights.jobs and not doubtful else None
            self._busy = self._busy or flight is not None
        self.working_since = time.monotonic()
        if starving:
            flights.try_again()
        elif doubtful:
            self._look()
        elif flight is not None:
            self._do(flight)
        return True

    def _has_work(self) -> bool:
        flights = self._flights
        return bool(flights.jobs or self.closed or self._doubtful)

    def _look(self) -> None:
        """Whether the device is still there; if not, see to it that nothing waits for it."""
        try:
            self._handle.configuration()
        except Failure as failure:
            if failure.code == statuses.ERROR_NO_DEVICE:
                self.lose()
        if self._lost:
            self._flights.end_all(_GONE_PATIENCE)
            self._flights.abandon_all(-ESHUTDOWN)
            if not self.closed:
                self._report_loss()

    def _do(self, flight: Flight) -> None:
        flights = self._flights
        status: int | None
        try:
            if flight.action is not None:
                status = self._requests.perform(flight.action, flight.urb) if self.alive else -ESHUTDOWN
            else:
                with flights.order:
                    status = flights.start(flight)
        except Exception:
            log.exception("a request to %s failed in a way of its own", self.info)
            status = -EPROTO
        if status is not None:
            flights.fail(flight, status)
        with flights.order, flights.lock:
            self._busy = bool(flights.jobs)

    def _reset(self) -> None:
        if self.resets:
            self._requests.reset()

    def _release(self) -> None:
        """In this order: cancel, wait, reset, release all, bind the drivers, close."""
        flights = self._flights
        flights.fail_queued(-ECONNRESET)
        ended = flights.end_all(PATIENCE)
        flights.fail_queued(-ECONNRESET)
        for restoring in (self._reset, self._requests.restore):  # where one fails, the other may not
            try:
                if self.closed and not self._lost:
                    restoring()
            except Failure as failure:
                log.debug("device %s: %s", self.info, failure)
        self._claims.release()
        self._claims.attach()
        flights.abandon_all(-ECONNRESET)
        if ended:
            self._handle.close()
        else:  # libusb would wait for them
            log.warning("device %s does not end its transfers; it stays open", self.info)
            self._handle.keep()
        self._on_closed()
