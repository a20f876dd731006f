"""The URBs of a device that are under way: in libusb, waiting for room there, or for their turn.

Each is finished once. Who wins a race is decided when libusb calls back, never when it is asked to cancel.

Threads: whoever submits, libusb's event thread, which finishes, and the device's worker, which does what blocks.
`order` is held from the decision that a URB is next until libusb has it, `lock` while the books are changed; who needs
both takes `order` first. No callback of anybody is called with one of them held.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

from usbip_capture.device import Transfer
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.budget import Budget
from usbip_capture.devices.libusb.flights import Flight, completion_of, load, nothing
from usbip_capture.devices.libusb.handle import Handle
from usbip_capture.devices.libusb.slots import Slot
from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.usb.status import ECONNRESET, EINVAL, ENOENT, ENOMEM, ESHUTDOWN
from usbip_capture.usb.urb import TransferType

#: What a transfer costs in usbfs besides its bytes.
_COST, _PACKET_COST = 512, 16
#: Seconds for which a URB waits when usbfs has no memory although nothing else is in flight on its endpoint.
STARVING_PATIENCE = 5.0

Queue: TypeAlias = "OrderedDict[Flight, None]"


class InFlight:
    """pending: all of them; whoever submits one adds it, with `lock` held.

    jobs: what waits for the worker, in order; anything that is submitted while it has work waits there, too.

    refusal: why a URB cannot be passed on. on_doubt: called when the device may be gone. starving: usbfs has refused
    memory; the worker calls `try_again` now and then.
    """

    def __init__(
        self,
        handle: Handle,
        budget: Budget,
        refusal: Callable[[Flight], int | None],
        on_doubt: Callable[[], None],
    ) -> None:
        self._handle = handle
        self._budget = budget
        self._refusal = refusal
        self._on_doubt = on_doubt
        self.forked()

    def forked(self) -> None:
        """Nothing is under way, and nobody holds a lock."""
        self.order, self.lock = threading.Lock(), threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.jobs: Queue = OrderedDict()
        self.starving = False
        self.pending: dict[Transfer, Flight] = {}
        self._flying: dict[Flight, None] = {}  # in libusb, or in the callback that finishes it
        self._at_endpoint: dict[int, int] = {}  # how many of them
        self._queues: dict[int, Queue] = {}  # by endpoint: what waits for room
        self._awaited: set[Flight] = set()  # what the worker waits for the end of
        self._cancelling = 0  # threads in libusb's cancel
        self._ending = False  # nothing goes to libusb any more

    # -- to libusb; `order` is held

    def start(self, flight: Flight) -> int | None:
        """Let a URB go, or queue it until there is room: None; else the status that it ends with."""
        status = self._refusal(flight)
        if status is not None:
            return status
        urb = flight.urb
        if urb.transfer_type != TransferType.CONTROL:  # which are small, and never to wait for reads that do not end
            flight.size = urb.length + _COST + _PACKET_COST * len(urb.packets)
        elif not self._queues:
            return -ECONNRESET if flight.unwanted else self._launch(flight)
        with self.lock:
            if flight.unwanted:
                return -ECONNRESET
            if urb.endpoint in self._queues or not self._take(flight):
                self._queues.setdefault(urb.endpoint, OrderedDict())[flight] = None
                return None
        return self._launch(flight)

    def _take(self, flight: Flight) -> bool:
        """Have the bytes for it. `lock` is held."""
        if not flight.size:
            return True
        idle = not self._at_endpoint.get(flight.urb.endpoint)
        return self._budget.take(flight.size, self._drain, idle=idle)

    def _launch(self, flight: Flight) -> int | None:
        """As `start`, for one whose bytes are taken from the budget."""
        slot: Slot | None = None
        endpoint = flight.urb.endpoint
        try:
            slot = self._handle.slot(len(flight.urb.packets))
            load(slot, flight.urb)
            slot.owner, slot.landed = flight, self._landed
            with self.lock:
                flight.slot = slot
                self._flying[flight] = None
                self._at_endpoint[endpoint] = self._at_endpoint.get(endpoint, 0) + 1
            slot.submit()
        except (Failure, ValueError, TypeError) as error:
            with self.changed:
                if flight.slot is not None:
                    flight.slot = None
                    self._gone_from_libusb(flight)
            self._budget.release(flight.size)
            if slot is not None:
                self._handle.recycle(slot)
            return self._not_submitted(flight, error) if isinstance(error, Failure) else -EINVAL
        flight.submitted = True
        if flight.unwanted:  # its end was asked for in vain while libusb did not have it yet
            with self.lock:
                late = self._to_be_cancelled(flight)
            if late:
                self._cancel(flight, slot)
        return None

    def _not_submitted(self, flight: Flight, failure: Failure) -> int | None:
        if failure.code == statuses.ERROR_NO_MEM:
            return self._no_memory(flight)
        if failure.code == statuses.ERROR_NO_DEVICE:
            self._on_doubt()
            return -ESHUTDOWN
        # usbfs knows no such endpoint in the current alternate setting, or a driver has its interface.
        return -ENOENT if failure.code in (statuses.ERROR_IO, statuses.ERROR_NOT_FOUND) else failure.status

    def _no_memory(self, flight: Flight) -> int | None:
        """Queue it again: until one of ours is through, or others leave some memory."""
        with self.changed:
            if flight.unwanted:
                return -ECONNRESET
            now = time.monotonic()
            flight.starving = flight.starving or now
            if now - flight.starving > STARVING_PATIENCE and not self._at_endpoint.get(flight.urb.endpoint):
                return -ENOMEM
            queue = self._queues.setdefault(flight.urb.endpoint, OrderedDict())
            queue[flight] = None
            queue.move_to_end(flight, last=False)
            self._budget.wait(self._drain)
            if not self.starving:
                self.starving = True
                self.changed.notify_all()
            return None

    def try_again(self) -> None:
        """Usbfs may have memory again. `order` is not held."""
        with self.lock:
            self.starving = False  # until it is refused again
        self._drain()

    def _drain(self) -> None:
        """There may be room: let those go that wait for it. `order` is not held."""
        failed: list[tuple[Flight, int]] = []
        with self.order:
            if self._ending:
                return
            for address in list(self._queues):
                self._drain_endpoint(address, failed)
        for flight, status in failed:
            self.refuse(flight, status)
        if failed:
            self._budget.notify()

    def _drain_endpoint(self, address: int, failed: list[tuple[Flight, int]]) -> None:
        while True:
            with self.lock:
                queue = self._queues.get(address)
                if not queue:
                    self._queues.pop(address, None)
                    return
                flight = next(iter(queue))
                if not self._take(flight):
                    return
                del queue[flight]
            status = self._launch(flight)
            if status is not None:
                failed.append((flight, status))
            elif not flight.submitted:
                return  # it is at the head of its queue again

    # -- back from libusb

    def _landed(self, slot: Slot) -> None:
        """On the event thread."""
        flight: Flight = slot.owner
        completion = completion_of(flight, slot)
        if completion.status and slot.status == statuses.NO_DEVICE:
            self._on_doubt()
        with self.lock:
            flight.landed = True
            transfer = flight.transfer  # None if it was abandoned
            if transfer is not None:
                del self.pending[transfer]
            reusable = not flight.cancelling
        if reusable:
            self._handle.recycle(slot)
        if transfer is not None:
            transfer.finish(completion)
        with self.lock:
            self._gone_from_libusb(flight)
        if flight.size:
            self._budget.release(flight.size)
            self._budget.notify()
        if self._queues:
            self._drain()

    def _gone_from_libusb(self, flight: Flight) -> None:
        """`lock` is held."""
        self._flying.pop(flight, None)
        endpoint = flight.urb.endpoint
        left = self._at_endpoint.get(endpoint, 0) - 1
        if left > 0:
            self._at_endpoint[endpoint] = left
        else:
            self._at_endpoint.pop(endpoint, None)
        if flight in self._awaited:
            self._awaited.discard(flight)
            if not self._awaited:
                self.changed.notify_all()

    def refuse(self, flight: Flight, status: int) -> None:
        """End a URB that libusb does not have."""
        with self.lock:
            transfer = flight.transfer
            if transfer is None or self.pending.pop(transfer, None) is None:
                return
        transfer.finish(nothing(flight.urb, status))

    def fail(self, flight: Flight, status: int) -> None:
        """As `refuse`, for one that may have had bytes of the budget that others wait for."""
        self.refuse(flight, status)
        self._budget.notify()

    # -- unlinking

    def cancel(self, transfer: Transfer) -> None:
        """See `Device.cancel`."""
        with self.lock:
            flight = self.pending.get(transfer)
            if flight is None:
                return
            slot = flight.slot
            if slot is None and not self._unqueue(flight):
                flight.unwanted = True  # it is just being submitted, or done by the worker
                return
            if slot is None:
                del self.pending[transfer]
            elif not self._to_be_cancelled(flight):
                return
        if slot is None:
            transfer.finish(nothing(flight.urb, -ECONNRESET))
        else:
            self._cancel(flight, slot)

    def abandon(self, transfer: Transfer) -> None:
        """See `Device.abandon`."""
        with self.lock:
            flight = self.pending.pop(transfer, None)
            if flight is None:
                return
            flight.transfer = None
            flight.unwanted = True
            self._unqueue(flight)
        transfer.finish(nothing(transfer.urb, -ECONNRESET))

    def _to_be_cancelled(self, flight: Flight) -> bool:
        """Whether the caller has to call `_cancel`. `lock` is held."""
        flight.unwanted = True
        if flight.cancelling or flight.landed or not flight.submitted:
            return False
        flight.cancelling = True
        self._cancelling += 1
        return True

    def _cancel(self, flight: Flight, slot: Slot) -> None:
        slot.cancel()
        with self.changed:
            flight.cancelling = False
            landed = flight.landed
            self._cancelling -= 1
            if not self._cancelling:
                self.changed.notify_all()
        if landed:
            self._handle.recycle(slot)

    def _unqueue(self, flight: Flight) -> bool:
        """Take it out of what waits; False if it is not there. `lock` is held."""
        for queue in (self.jobs, self._queues.get(flight.urb.endpoint)):
            if queue and flight in queue:
                del queue[flight]
                return True
        return False

    # -- all of them; for the worker only

    def flush(self, interface: int | None, patience: float) -> None:
        """End what is pending on an interface, or on all but endpoint 0, with -ESHUTDOWN, and wait for it."""

        def is_meant(flight: Flight) -> bool:
            return flight.urb.transfer_type != TransferType.CONTROL and interface in (None, flight.interface)

        with self.lock:
            flying = [flight for flight in self._flying if is_meant(flight)]
            queued = [flight for queue in self._queues.values() for flight in queue if is_meant(flight)]
            for flight in queued:
                self._unqueue(flight)
            for flight in flying:
                flight.flushed = True
        for flight in queued:
            self.refuse(flight, -ESHUTDOWN)
        self._end(flying, patience)

    def end_all(self, patience: float) -> bool:
        """Cancel all that libusb has, and wait for it; False if some do not end. Nothing more may be submitted."""
        with self.order:  # who was submitting is through
            self._ending = True
        with self.lock:
            flying = list(self._flying)
        return self._end(flying, patience)

    def _end(self, flights: Iterable[Flight], patience: float) -> bool:
        with self.lock:
            self._awaited = {flight for flight in flights if flight in self._flying}
            to_cancel = [(f, f.slot) for f in self._awaited if self._to_be_cancelled(f)]
        for flight, slot in to_cancel:
            if slot is not None:
                self._cancel(flight, slot)
        with self.changed:
            return self.changed.wait_for(lambda: not self._awaited and not self._cancelling, patience)

    def fail_queued(self, status: int) -> None:
        """End all that libusb does not have, and the worker has not begun."""
        with self.lock:
            failed = [flight for queue in self._queues.values() for flight in queue]
            failed += self.jobs
            self._queues.clear()
            self.jobs.clear()
        for flight in failed:
            self.refuse(flight, status)

    def abandon_all(self, status: int) -> None:
        """End all at once, whatever libusb does."""
        with self.lock:
            flights, self.pending = list(self.pending.items()), {}
            for _, flight in flights:
                flight.transfer = None
        for transfer, flight in flights:
            transfer.finish(nothing(flight.urb, status))
