"""A Device over any PyUSB backend: a device of this machine by libusb, or one that somebody else's backend reaches.

PyUSB knows neither URBs in flight nor unlinking them. So each endpoint has a thread that does one transfer after
the other, and looks every POLL_INTERVAL whether it is still wanted. Isochronous transfers can have full packets only.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

from usb.backend import IBackend
from usb.core import USBError

from usbip_capture.device import Device, Transfer
from usbip_capture.devices.over_pyusb import device_info, filled_packets, status_of
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.system.durations import milliseconds
from usbip_capture.usb import setup as requests
from usbip_capture.usb.descriptors import read_configuration
from usbip_capture.usb.endpoints import Endpoint, EndpointMap
from usbip_capture.usb.status import ECONNRESET, ENOENT, ENOMEM, EOPNOTSUPP, EREMOTEIO, ESHUTDOWN, EXDEV, GONE
from usbip_capture.usb.urb import DIR_IN, SHORT_NOT_OK, Completion, IsoPacket, TransferType, Urb

log = logging.getLogger(__name__)

#: Seconds after which a cancelled transfer is abandoned, at most; a control transfer cannot be cancelled.
POLL_INTERVAL = 0.1
_CONTROL_TIMEOUT_MS = 5000
#: Seconds that `close` waits for the backend to return from what it does: longer than any time-out given to it.
_CLOSE_PATIENCE = 6.0
_METHODS = {
    TransferType.BULK: ("bulk_read", "bulk_write"),
    TransferType.INTERRUPT: ("intr_read", "intr_write"),
    TransferType.ISOCHRONOUS: ("iso_read", "iso_write"),
}


class BackendDevice(Device):
    """The device `dev` of a PyUSB `backend`, opened here; kernel drivers are detached from what is used.

    Raises DeviceNotFound when it cannot be opened or read.
    """

    def __init__(self, backend: IBackend, dev: Any) -> None:
        self._backend = backend
        try:
            self.info = device_info(backend, dev)
            self._handle = backend.open_device(dev)
        except Exception as error:  # backends of others raise what their libraries do
            raise DeviceNotFound(f"the device cannot be opened: {_reason(error)}") from error
        self.endpoints = EndpointMap(None, self.info.speed)
        self._claimed: set[int] = set()
        self._lost = ""
        self._closed = False
        self._on_lost: Callable[[str], None] | None = None
        self._lock = threading.Lock()
        self._pending: dict[Transfer, None] = {}
        self._unwanted: set[Transfer] = set()
        self._workers: dict[int, tuple[queue.SimpleQueue[Transfer | None], threading.Thread]] = {}
        self._learn()

    @property
    def alive(self) -> bool:
        return not self._lost

    @property
    def loss(self) -> str:
        return self._lost

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """A loss is noticed by the next transfer only."""
        self._on_lost = on_lost
        if self._lost and not self._closed:
            on_lost(self._lost)

    def submit(self, transfer: Transfer) -> None:
        address = transfer.urb.endpoint if transfer.urb.transfer_type != TransferType.CONTROL else 0
        status = -ESHUTDOWN
        with self._lock:
            if not self._lost:
                if self._worker(address):
                    self._pending[transfer] = None
                    self._workers[address][0].put(transfer)
                    return
                status = -ENOMEM
        transfer.finish(_nothing(transfer.urb, status))

    def cancel(self, transfer: Transfer) -> None:
        with self._lock:
            if transfer in self._pending:
                self._unwanted.add(transfer)

    def abandon(self, transfer: Transfer) -> None:
        self._finish(transfer, _nothing(transfer.urb, -ECONNRESET))

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lost = self._lost or f"device {self.info} was closed"
            workers = list(self._workers.values())
        self._fail_pending(-ECONNRESET)
        for waiting, _ in workers:
            waiting.put(None)
        deadline = time.monotonic() + _CLOSE_PATIENCE
        for _, thread in workers:
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0.0))
                if thread.is_alive():
                    log.warning("%s stays open: its backend does not return from a transfer", self.info)
                    return
        for number in self._claimed:
            self._quietly(partial(self._backend.release_interface, self._handle, number))
        self._quietly(partial(self._backend.close_device, self._handle))

    def _quietly(self, call: Callable[[], object]) -> None:
        """For what is done at the end, with a device that may be gone."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  backends of others raise what their libraries do
            log.debug("%s: %s", self.info, error)

    # -- one endpoint

    def _worker(self, address: int) -> bool:
        """Have a thread for this endpoint; False if there is none to be had. `_lock` is held."""
        if address not in self._workers:
            waiting: queue.SimpleQueue[Transfer | None] = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(waiting,), name="pyusb-endpoint", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("%s: no thread for endpoint %#04x: %s", self.info, address, error)
                return False
            self._workers[address] = waiting, thread
        return True

    def _work(self, waiting: queue.SimpleQueue[Transfer | None]) -> None:
        while (transfer := waiting.get()) is not None:
            try:
                completion = self._run(transfer)
            except Exception as error:
                if not isinstance(error, (USBError, NotImplementedError)):
                    log.exception("%s: the backend failed in a way of its own", self.info)
                completion = _nothing(transfer.urb, status_of(error))
            if completion.status in GONE:
                self._lose()
            self._finish(transfer, completion)

    def _run(self, transfer: Transfer) -> Completion:
        urb = transfer.urb
        if urb.transfer_type == TransferType.CONTROL:
            return self._control(urb)
        endpoint = self.endpoints.find(urb.endpoint)
        if endpoint is None or endpoint.transfer_type != urb.transfer_type:
            return _nothing(urb, -ENOENT)
        if urb.transfer_type == TransferType.ISOCHRONOUS and not _full_packets(urb, endpoint):
            return _nothing(urb, -EOPNOTSUPP)
        self._claim(endpoint.bInterfaceNumber)
        buffer = array("B", bytes(urb.data) if not urb.endpoint & DIR_IN else bytes(urb.length))
        moved = self._move(transfer, endpoint, buffer)
        if moved is None:
            return _nothing(urb, -ECONNRESET)
        packets = filled_packets(urb.packets, moved)
        if not urb.endpoint & DIR_IN:
            return Completion(0, moved, packets=packets)
        status = -EREMOTEIO if moved < urb.length and urb.flags & SHORT_NOT_OK else 0
        return Completion(status, moved, bytes(memoryview(buffer)[:moved]), packets=packets)

    def _move(self, transfer: Transfer, endpoint: Endpoint, buffer: array[int]) -> int | None:
        """Bytes moved; None when the transfer was cancelled."""
        inward = bool(endpoint.address & DIR_IN)
        method = getattr(self._backend, _METHODS[endpoint.transfer_type][not inward])
        moved = 0
        while transfer not in self._unwanted and not self._lost:
            rest = buffer[moved:] if moved else buffer
            try:
                moved += int(
                    method(self._handle, endpoint.address, endpoint.bInterfaceNumber, rest, milliseconds(POLL_INTERVAL))
                )
            except USBError as error:
                if status_of(error) != -ECONNRESET:
                    raise
                continue
            if inward or moved == len(buffer):
                return moved
        return moved or None

    # -- control: what changes the settings goes by the methods that the backend has for it

    def _control(self, urb: Urb) -> Completion:
        setup = requests.Setup.unpack(urb.setup)
        action = requests.classify(urb.setup)
        if isinstance(action, requests.SetConfiguration):
            self._release()
            self._backend.set_configuration(self._handle, action.value)
        elif isinstance(action, requests.SetInterface):
            self._claim(action.interface)
            self._backend.set_interface_altsetting(self._handle, action.interface, action.alternate)
        elif isinstance(action, requests.ClearHalt):
            self._backend.clear_halt(self._handle, action.endpoint)
        elif isinstance(action, requests.PortReset):
            self._backend.reset_device(self._handle)
        else:
            return self._data_stage(urb, setup)
        self.endpoints.follow(urb.setup)
        return Completion(0)

    def _data_stage(self, urb: Urb, setup: requests.Setup) -> Completion:
        buffer = array("B", bytes(urb.data) if not urb.endpoint & DIR_IN else bytes(urb.length))
        moved = self._backend.ctrl_transfer(self._handle, *setup[:4], buffer, _CONTROL_TIMEOUT_MS)
        if not urb.endpoint & DIR_IN:
            return Completion(0, urb.length)
        short = moved < urb.length and urb.flags & SHORT_NOT_OK
        return Completion(-EREMOTEIO if short else 0, moved, bytes(memoryview(buffer)[:moved]))

    def _claim(self, number: int) -> None:
        with self._lock:
            if number in self._claimed:
                return
        try:
            if self._backend.is_kernel_driver_active(self._handle, number):
                self._backend.detach_kernel_driver(self._handle, number)
        except NotImplementedError:  # no such thing on this system
            pass
        self._backend.claim_interface(self._handle, number)
        self._claimed.add(number)

    def _release(self) -> None:
        for number in sorted(self._claimed):
            self._backend.release_interface(self._handle, number)
        self._claimed.clear()

    def _learn(self) -> None:
        """The endpoints, as they are now."""
        try:
            count = self._read(requests.DT_DEVICE, 0, 18)[17]
            for index in range(count):
                self.endpoints.add_configuration(read_configuration(index, self._read))
            self.endpoints.activate(self._backend.get_configuration(self._handle))
        except Exception as error:
            self._quietly(partial(self._backend.close_device, self._handle))
            raise DeviceNotFound(f"the descriptors of device {self.info} cannot be read: {_reason(error)}") from error

    def _read(self, kind: int, index: int, length: int) -> bytes:
        buffer = array("B", bytes(length))
        setup = requests.get_descriptor(kind, index, 0, length)
        return bytes(buffer[: self._backend.ctrl_transfer(self._handle, *setup[:4], buffer, _CONTROL_TIMEOUT_MS)])

    # -- ending

    def _finish(self, transfer: Transfer, completion: Completion) -> None:
        with self._lock:
            if transfer not in self._pending:
                return
            del self._pending[transfer]
            self._unwanted.discard(transfer)
            if completion.status in GONE:
                completion = _nothing(transfer.urb, -ESHUTDOWN)
        transfer.finish(completion)

    def _lose(self) -> None:
        with self._lock:
            if self._lost:
                return
            self._lost = f"device {self.info} is gone"
        self._fail_pending(-ESHUTDOWN)
        if self._on_lost is not None:
            try:
                self._on_lost(self._lost)
            except Exception:
                log.exception("what was to be called when %s was lost failed", self.info)

    def _fail_pending(self, status: int) -> None:
        for transfer in list(self._pending):
            self._finish(transfer, _nothing(transfer.urb, status))


def _full_packets(urb: Urb, endpoint: Endpoint) -> bool:
    """Whether the packets are those that PyUSB makes: full ones without gaps, the last one perhaps shorter."""
    at = 0
    for packet in urb.packets:
        if packet.offset != at or packet.length != min(endpoint.packet_size, urb.length - at):
            return False
        at += packet.length
    return at == urb.length


def _reason(error: Exception) -> str:
    """A USBError's words; of other exceptions, which may have none, their name too."""
    if isinstance(error, USBError):
        return str(error.strerror or error)
    return str(error) if isinstance(error, UsbipError) else f"{type(error).__name__} {error}".rstrip()


def _nothing(urb: Urb, status: int) -> Completion:
    return Completion(status, packets=[IsoPacket(p.offset, p.length, 0, -EXDEV) for p in urb.packets])
