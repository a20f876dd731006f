"""Where taps put events for the recorder's thread: one bounded queue for all, one channel for each device."""

from __future__ import annotations

import threading
import time
from typing import TypeAlias

from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.tap import Tap
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import GONE, status_name
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, Urb

#: Bytes that a queued event takes beside its data, and those of each isochronous packet.
EVENT_COST = 512
PACKET_COST = 160

# channel, packer, cost, time stamp, URB id, URB, data of an outward URB, completion (None: submit), comments
Event: TypeAlias = "tuple[UsbChannel, UsbmonPacker, int, int, int, Urb, Buffer, Completion | None, tuple[str, ...]]"
# Besides events: a block that is packed already, a channel whose interface begins here, and the sign that a `flush`
# has been reached.
Item: TypeAlias = "Event | bytes | UsbChannel | threading.Event"


class EventQueue:
    """What is captured and not yet written. All but `wake` is read and changed under `lock`.

    used: bytes taken by what is queued. reserved: bytes for the completions of URBs that are out.
    ended: nothing is captured any more. idle: the writer sleeps until `wake` is set.
    """

    def __init__(self, budget: int) -> None:
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.items: list[Item] = []
        self.budget = budget
        # Half of the queue may be spoken for by completions to come: more would turn submits away for nothing.
        self.max_reserved = budget // 2
        self.used = self.reserved = 0
        self.last_urb_id = 0
        self.idle = False
        self.ended = False


class UsbChannel(Tap):
    """One device on one interface of the capture.

    received, dropped, written: events so far; `dropped` is a part of `received`.
    label: a comment for each URB submitted while it is set, on its submit and its completion.
    """

    def __init__(
        self, queue: EventQueue, interface_id: int, snaplen: int, info: DeviceInfo, description: str
    ) -> None:
        self.interface_id = interface_id
        self.description = description
        self.speed = info.speed
        self.described = False                  # whether the interface is in the output
        self.settled = 0.0                      # until then, of time.monotonic(), `product` is waited for
        self.start_ns = time.time_ns()
        self.received = self.dropped = self.packed = self.written = 0
        self.label: str | None = None
        self.remarks: list[str] = []            # for the next event
        self._queue = queue
        self._snaplen = snaplen
        self._labels: dict[int, str] = {}       # of URBs that are out
        self._gone = False
        self._packer = UsbmonPacker(interface_id, snaplen, info.busnum, info.devnum)

    def device(self, info: DeviceInfo) -> None:
        """The device is (back) at this bus and device number, for all events to come."""
        with self._queue.lock:
            self._packer = UsbmonPacker(self.interface_id, self._snaplen, info.busnum, info.devnum)
            self._gone = False

    def product(self, name: str) -> None:
        """Complete the description of the interface with the device's own name; no effect once it is written."""
        with self._queue.lock:
            self.description = f"{self.description} {name}".strip()
            self.settled = 0.0

    def comment(self, text: str) -> None:
        """Say something at this moment: on the next event, or in the statistics if there is none."""
        with self._queue.lock:
            self.remarks.append(text)

    def gone(self, reason: str) -> None:
        """Say that the device is away, unless the completion of a URB has said it."""
        with self._queue.lock:
            if not self._gone:
                self._gone = True
                # No packet marks the moment itself: the next one may be much later.
                self.remarks.append(f"usbip-capture: device gone at {time.strftime('%H:%M:%S')}: {reason}")

    def submitted(self, urb: Urb) -> int:
        queue = self._queue
        if queue.ended:
            return 0
        data = urb.data
        if type(data) is not bytes:
            data = bytes(data)      # its owner may change it as soon as the URB is done
        cost = EVENT_COST + len(data) + PACKET_COST * len(urb.packets)
        room = _completion_cost(urb)
        with queue.lock:
            if queue.ended:
                return 0
            self.received += 1
            room += queue.reserved
            if queue.used + cost + min(room, queue.max_reserved) > queue.budget:
                self.dropped += 1
                return 0
            queue.reserved = room
            queue.used += cost
            queue.last_urb_id = urb_id = queue.last_urb_id + 1
            comments: tuple[str, ...] = ()
            if self.remarks or self.label is not None:
                comments = self._comments(self.label)
                if self.label is not None:
                    self._labels[urb_id] = self.label
            queue.items.append((self, self._packer, cost, time.time_ns(), urb_id, urb, data, None, comments))
            wake, queue.idle = queue.idle, False
        if wake:
            queue.wake.set()
        return urb_id

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        queue = self._queue
        if queue.ended:
            return
        status = completion.status
        cost = EVENT_COST + len(completion.data) + PACKET_COST * len(completion.packets)
        room = _completion_cost(urb)
        with queue.lock:
            if queue.ended:
                return
            self.received += 1
            if urb_id:
                queue.reserved -= room
            label = self._labels.pop(urb_id, None) if self._labels else None
            if not urb_id or queue.used + cost > queue.budget:
                self.dropped += 1
                return
            queue.used += cost
            comments: tuple[str, ...] = ()
            if status in GONE and not self._gone:
                self._gone = True
                self.remarks.append(f"usbip-capture: device gone: {status_name(status)}")
            if self.remarks or label is not None:
                comments = self._comments(label)
            queue.items.append((self, self._packer, cost, time.time_ns(), urb_id, urb, b"", completion, comments))
            wake, queue.idle = queue.idle, False
        if wake:
            queue.wake.set()

    def _comments(self, label: str | None) -> tuple[str, ...]:
        remarks, self.remarks = self.remarks, []
        return tuple(remarks) if label is None else (*remarks, label)


def _completion_cost(urb: Urb) -> int:
    """Room for what may come back."""
    data = urb.length if urb.endpoint & DIR_IN else 0
    return EVENT_COST + data + PACKET_COST * len(urb.packets)
