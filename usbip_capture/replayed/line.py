"""What one IN endpoint of a recorded device is still to send."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from usbip_capture.errors import CaptureError
from usbip_capture.recorded.episodes import Sent
from usbip_capture.recorded.tags import retagged
from usbip_capture.usb.status import EPIPE, GONE

if TYPE_CHECKING:
    from usbip_capture.replayed.device import ReplayedDevice


class Line:
    """What one IN endpoint is still to send, in order: data at its time, and errors when what is before was read.

    fault: the status of an error that comes next, 0 without. waits: the host is to read first what is there. ends: the
    status by which the device was unplugged, 0 without, which comes when the host has asked for all else.
    """

    def __init__(self, device: ReplayedDevice, address: int) -> None:
        self._device = device
        self._address = address
        self._lock = threading.Lock()
        self._coming: deque[tuple[float | None, Iterator[Sent], bytes]] = deque()
        self._next: tuple[float, Sent, bytes] | None = None
        self._due = False
        self._going = self._again = self._ending = False
        self._failed = b""
        self.fault = self.ends = 0
        self.waits = False

    def play(self, found: Iterable[Sent], asked: bytes) -> None:
        """All of `found` from now on; asked: what it answers."""
        with self._lock:
            self._coming.append((time.monotonic(), iter(found), asked))
        self._go_on()

    def hurry(self) -> None:
        """Wait for nothing that is still to come."""
        with self._lock:
            if self._next is None and not self._coming:
                return
            self._coming = deque((None, found, asked) for _, found, asked in self._coming)
            if self._next is not None:
                self._next = 0.0, *self._next[1:]
            self._due = False
        self._go_on()

    def read(self) -> None:
        """The host has read, or waits."""
        if self.fault and self._device.waits_for_data(self._address):
            self._meet()
            self._go_on()
        elif self.waits:
            self._go_on()

    def go_on(self) -> None:
        """What follows can come: the host has cleared the halt, or has asked for all."""
        self._go_on()

    def _meet(self) -> None:
        """The host reads, and gets the error."""
        with self._lock:
            status, self.fault = self.fault, 0
        if status == -EPIPE:
            self._device.stall(self._address)
        elif status in GONE:
            self._device.end()
        elif status:
            self._device.fail(self._address, status, self._failed)

    def _go_on(self) -> None:
        """Send what is due; one thread at a time does, whoever else comes has it look again."""
        with self._lock:
            self._again = True
            if self._going:
                return
            self._going = True
        while True:
            with self._lock:
                if not self._again:
                    self._going = False
                    return
                self._again = False
            try:
                while self._send():
                    pass
            except CaptureError as error:
                self._device.lose(str(error))

    def _send(self) -> bool:
        """Send what is next, if it can be sent now."""
        address, device = self._address, self._device
        self.waits = False
        if self._due or self.fault or address in device.halted:
            return False
        if not self._fetch():
            return self._end()
        assert self._next is not None
        moment, sent, asked = self._next
        if moment > time.monotonic():
            self._due = True
            device.timetable.at(moment, self._later)
            return False
        if sent.status:
            self._next = None
            if sent.status in GONE:
                # Else it was flushed by the system, as when it sets an interface.
                self.ends = sent.status if device.is_unplugged_by(sent.status, sent.number) else self.ends
                return True
            self._failed, self.fault = sent.data, sent.status
            if not device.waits_for_data(address):
                return False
            self._meet()
            return True
        if not device.has_room(address):
            self.waits = True
            # It may have been read meanwhile.
            return device.has_room(address)
        self._next = None
        device.feed(address, retagged(sent.data, asked) if asked else sent.data)
        return True

    def _end(self) -> bool:
        """Nothing more comes: the device is unplugged, if it was, when that is due."""
        at = self._device.ends_at if self.ends else None
        if at is None:
            return False
        if at > time.monotonic():
            if not self._ending:
                self._ending = True
                self._device.timetable.at(at, self._go_on)
            return False
        self.ends, self.fault = 0, self.ends
        if self._device.waits_for_data(self._address):
            self._meet()
        return False

    def _fetch(self) -> bool:
        """Have what is next, if there is anything."""
        while self._next is None:
            with self._lock:
                if not self._coming:
                    return False
                begun, found, asked = self._coming[0]
            sent = next(found, None)
            if sent is not None:
                moment = 0.0 if begun is None else begun + self._device.delay(sent.after)
                self._next = moment, sent, asked
                break
            with self._lock:
                self._coming.popleft()
        return True

    def _later(self) -> None:
        self._due = False
        self._go_on()
