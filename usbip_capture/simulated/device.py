"""A USB device made of descriptors and a few methods, behaving as on a Linux host.

Subclasses define what it does: `control` answers class and vendor requests, `received` takes OUT data, `feed` gives
data to IN endpoints. An IN transfer waits while there is no data (NAK), an OUT transfer while its endpoint is held.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.simulated.chapter9 import Descriptors, StandardRequests
from usbip_capture.system.forks import disown_in_children
from usbip_capture.system.timetable import Timetable
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.status import ECONNRESET, ENOENT, EOVERFLOW, EPIPE, EREMOTEIO, ESHUTDOWN, EXDEV
from usbip_capture.usb.urb import DIR_IN, SHORT_NOT_OK, Buffer, Completion, IsoPacket, TransferType, Urb

_STANDARD = 0x60  # bmRequestType, type bits
#: Bytes that an IN endpoint keeps for its host. A device with more to send loses it; a loopback takes no more (NAK).
MAX_QUEUED = 1 << 20
#: What a message costs besides its bytes.
_MESSAGE_COST = 64


class _Queue:
    """The messages that wait at an IN endpoint. size: what they cost, in bytes."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages: deque[Buffer] = deque()
        self.size = 0

    def append(self, message: Buffer) -> None:
        self.messages.append(message)
        self.size += _MESSAGE_COST + len(message)

    def pop(self) -> Buffer:
        message = self.messages.popleft()
        self.size -= _MESSAGE_COST + len(message)
        return message

    def put_back(self, rest: Buffer) -> None:
        self.messages.appendleft(rest)
        self.size += _MESSAGE_COST + len(rest)


class SimulatedDevice(Device):
    """One device, as imported: unconfigured until SET_CONFIGURATION."""

    def __init__(self, info: DeviceInfo, descriptors: Descriptors) -> None:
        self.info = info
        self.timetable = Timetable(f"usb-{info.busid}")
        self._standard = StandardRequests(descriptors, info.speed)
        self._lock = threading.RLock()
        self._queues: dict[int, _Queue] = {}
        self._waiting: dict[int, OrderedDict[Transfer, None]] = {}
        self._held: set[int] = set()
        self._full: dict[int, int] = {}  # IN endpoint -> the OUT endpoint that is on hold until it is read
        self._iso: dict[Transfer, None] = {}
        self._iso_free: dict[int, float] = {}  # endpoint -> when its last URB is over
        self._gone = False
        self._on_lost: Callable[[str], None] | None = None
        disown_in_children(self)

    def forked(self) -> None:
        """In a child process: the device, and what waits for it, stay its parent's; the lock may have been held."""
        self._lock = threading.RLock()
        self._gone = True
        self._waiting.clear()
        self._iso.clear()
        self._queues.clear()

    # -- what a kind of device does

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """Answer a class or vendor request: the data of an IN stage, b"" for OUT; None to stall."""
        return None

    def received(self, address: int, data: bytes) -> None:
        """An OUT transfer brought `data`."""

    def feed(self, address: int, data: bytes) -> None:
        """Let an IN endpoint have `data`, as one message; lost if its host has left MAX_QUEUED bytes unread."""
        with self._lock:
            queue = self._queues.setdefault(address, _Queue())
            if not self._gone and queue.size < MAX_QUEUED:
                queue.append(data)
        self._pump(address)

    def loop_back(self, source: int, address: int, data: bytes) -> None:
        """Let an IN endpoint have what came to OUT endpoint `source`, which takes no more while the other is full.

        For `received`. Nothing is lost but isochronous data, which cannot wait.
        """
        with self._lock:
            queue = self._queues.setdefault(address, _Queue())
            endpoint = self._standard.endpoints.find(source)
            waits = endpoint is not None and endpoint.transfer_type != TransferType.ISOCHRONOUS
            if not self._gone and (waits or queue.size < MAX_QUEUED):
                queue.append(data)
        self._pump(address)
        if waits:
            self.wait_for_room(source, address)

    def wait_for_room(self, source: int, address: int) -> None:
        """NAK at OUT endpoint `source` while the host leaves MAX_QUEUED bytes unread at `address`."""
        with self._lock:
            queue = self._queues.get(address)
            if queue is not None and queue.size >= MAX_QUEUED:
                self._full[address] = source

    def waits_for_data(self, address: int) -> bool:
        """Whether a host reads this IN endpoint now, and nothing is there for it."""
        with self._lock:
            return bool(self._waiting.get(address))

    def hold(self, address: int, on: bool) -> None:
        """Take no more data at an OUT endpoint (NAK), or take it again, beginning with what waits."""
        with self._lock:
            if on:
                self._held.add(address)
                return
            self._held.discard(address)
        self._take_out(address)

    def _take_out(self, address: int) -> None:
        """Take the OUT transfers that wait, unless they have to go on waiting."""
        while True:
            with self._lock:
                waiting = self._waiting.get(address)
                if self._is_held(address) or not waiting:
                    return
                transfer, _ = waiting.popitem(last=False)
            transfer.finish(Completion(0, transfer.urb.length))
            self.received(address, bytes(transfer.urb.data))

    def _is_held(self, address: int) -> bool:
        return address in self._held or address in self._full.values()

    # -- faults

    def stall(self, address: int) -> None:
        """Halt an endpoint until the host clears that."""
        with self._lock:
            self._standard.halted.add(address)
            failed = self._take_waiting(address)
        for transfer in failed:
            transfer.finish(_nothing(transfer.urb, -EPIPE))

    def unplug(self) -> None:
        """The device is pulled out."""
        self._leave(-ESHUTDOWN)
        if self._on_lost is not None:
            self._on_lost(f"device {self.info} was unplugged")

    # -- Device

    @property
    def alive(self) -> bool:
        return not self._gone

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self._on_lost = on_lost
        if self._gone:
            on_lost(f"device {self.info} is gone")

    def submit(self, transfer: Transfer) -> None:
        urb = transfer.urb
        with self._lock:
            if self._gone:
                completion: Completion | None = _nothing(urb, -ESHUTDOWN)
            elif urb.transfer_type == TransferType.CONTROL:
                completion = self._control(urb)
            else:
                completion = self._start(transfer)
        if completion is None:
            self._pump(urb.endpoint)
            return
        transfer.finish(completion)
        # After its completion: some clients lose an answer that overtakes what it answers.
        if urb.transfer_type != TransferType.CONTROL and not completion.status:
            self.received(urb.endpoint, bytes(urb.data))

    def cancel(self, transfer: Transfer) -> None:
        with self._lock:
            waiting = self._waiting.get(transfer.urb.endpoint)
            if waiting and transfer in waiting:
                del waiting[transfer]
            elif transfer in self._iso:
                del self._iso[transfer]
            else:
                return  # finished, or being finished
        transfer.finish(_nothing(transfer.urb, -ECONNRESET))

    def abandon(self, transfer: Transfer) -> None:
        self.cancel(transfer)

    def close(self) -> None:
        self._leave(-ECONNRESET)

    # -- how it works

    def _leave(self, status: int) -> None:
        with self._lock:
            self._gone = True
            failed = [t for address in list(self._waiting) for t in self._take_waiting(address)]
            failed += self._iso
            self._iso.clear()
            # At once, not when the cycle collector comes by: a client may have left a megabyte in each.
            self._queues.clear()
        self.timetable.close()
        for transfer in failed:
            transfer.finish(_nothing(transfer.urb, status))

    def _take_waiting(self, address: int) -> list[Transfer]:
        return list(self._waiting.pop(address, ()))

    def _control(self, urb: Urb) -> Completion:
        setup = Setup.unpack(urb.setup)
        data = bytes(urb.data)
        answer = self.control(setup, data) if setup.bmRequestType & _STANDARD else self._standard.answer(setup)
        if answer is None:
            return Completion(-EPIPE)
        if not urb.endpoint & DIR_IN:
            return Completion(0, urb.length)
        answer = answer[: urb.length]
        return _short(urb, Completion(0, len(answer), answer))

    def _start(self, transfer: Transfer) -> Completion | None:
        """Begin a transfer on another endpoint than 0; its completion if there is one already."""
        urb = transfer.urb
        endpoint = self._standard.endpoints.find(urb.endpoint)
        if endpoint is None or endpoint.transfer_type != urb.transfer_type:
            return _nothing(urb, -ENOENT)
        if urb.endpoint in self._standard.halted:
            return _nothing(urb, -EPIPE)
        if urb.transfer_type == TransferType.ISOCHRONOUS:
            self._start_iso(transfer, endpoint)
            return None
        if urb.endpoint & DIR_IN or self._is_held(urb.endpoint) or self._waiting.get(urb.endpoint):
            self._waiting.setdefault(urb.endpoint, OrderedDict())[transfer] = None
            return None
        return Completion(0, urb.length)

    def _pump(self, address: int) -> None:
        """Bring waiting transfers and data of an IN endpoint together."""
        while True:
            with self._lock:
                waiting, queue = self._waiting.get(address), self._queues.get(address)
                if not waiting or queue is None or not queue.messages:
                    return
                transfer, _ = waiting.popitem(last=False)
                completion = _filled(transfer.urb, queue, self._packet_size(address))
                # Half of it is to be read first, or each read would wake a writer.
                source = self._full.pop(address, None) if queue.size <= MAX_QUEUED // 2 else None
            transfer.finish(completion)
            if source is not None:
                self._take_out(source)

    def _packet_size(self, address: int) -> int:
        endpoint = self._standard.endpoints.find(address)
        return endpoint.wMaxPacketSize & 0x7FF if endpoint is not None else 0

    # -- isochronous: paced by the clock, never waiting for data

    def _start_iso(self, transfer: Transfer, endpoint: Endpoint) -> None:
        unit = 125e-6 if self.info.speed >= Speed.HIGH else 1e-3
        start = max(time.monotonic(), self._iso_free.get(endpoint.address, 0.0))
        over = start + len(transfer.urb.packets) * max(endpoint.interval, 1) * unit
        self._iso_free[endpoint.address] = over
        self._iso[transfer] = None
        self.timetable.at(over, lambda: self._finish_iso(transfer, int(over / unit) & 0x7FFF))

    def _finish_iso(self, transfer: Transfer, frame: int) -> None:
        urb = transfer.urb
        with self._lock:
            if transfer not in self._iso:
                return
            del self._iso[transfer]
            completion = self._iso_in(urb, frame) if urb.endpoint & DIR_IN else _iso_out(urb, frame)
        transfer.finish(completion)
        if not urb.endpoint & DIR_IN:
            for packet in urb.packets:
                self.received(urb.endpoint, bytes(urb.data[packet.offset : packet.offset + packet.length]))

    def _iso_in(self, urb: Urb, frame: int) -> Completion:
        queue = self._queues.get(urb.endpoint) or _Queue()
        packets, data = [], b""
        for packet in urb.packets:
            piece = queue.pop()[: packet.length] if queue.messages else b""
            packets.append(IsoPacket(packet.offset, packet.length, len(piece), 0))
            data += piece
        return Completion(0, len(data), data, frame, packets=packets)


def _iso_out(urb: Urb, frame: int) -> Completion:
    packets = [IsoPacket(p.offset, p.length, p.length, 0) for p in urb.packets]
    return Completion(0, urb.length, start_frame=frame, packets=packets)


def _filled(urb: Urb, queue: _Queue, packet: int) -> Completion:
    """What an IN transfer gets from the messages that are there, each sent in packets of so many bytes."""
    message = queue.pop()
    if len(message) <= urb.length:
        return _short(urb, Completion(0, len(message), bytes(message)))
    # A view, for a message may be long and read in small pieces.
    head, rest = bytes(message[: urb.length]), memoryview(message)[urb.length :]
    if urb.transfer_type == TransferType.INTERRUPT and (not packet or urb.length % packet):
        return Completion(-EOVERFLOW, len(head), head)  # the packet that does not fit is babble
    queue.put_back(rest)
    return Completion(0, len(head), head)


def _short(urb: Urb, completion: Completion) -> Completion:
    if completion.actual_length < urb.length and urb.flags & SHORT_NOT_OK:
        return Completion(-EREMOTEIO, completion.actual_length, completion.data)
    return completion


def _nothing(urb: Urb, status: int) -> Completion:
    return Completion(status, packets=[IsoPacket(p.offset, p.length, 0, -EXDEV) for p in urb.packets])
