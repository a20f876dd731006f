"""What the program has written and the device has not taken yet: a few URBs in flight, in their order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.errors import TransferFailed, TransferTimeout
from usbip_capture.usb.status import GONE, TIMED_OUT, TOO_LARGE, UNLINKED, status_name
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

#: Bytes that are taken from the program before a write waits. In flight together they fit into the buffers of a TCP
#: connection, so that sending them never waits for a server that is slow.
CAPACITY = 64 << 10
#: Bytes of one URB, and how many are out at once: ESP32 bridges take no longer ones.
CHUNK, DEPTH = 4096, 8
#: A chunk that every server takes.
_SMALLEST = 64
_LONGEST_WAIT = 86_400.0


class Outbox:
    """Bytes on their way to the device. stopped: whether flow control forbids to send now; ask again by `pump`.

    on_stall: called with the endpoint after the device has stalled.
    """

    def __init__(self, stopped: Callable[[], bool], on_stall: Callable[[int], None]) -> None:
        self._stopped = stopped
        self._on_stall = on_stall
        self._device: Device | None = None
        self._endpoint = 0
        self._chunk = CHUNK
        # What is larger than a server has ever taken goes alone: if it is refused, nothing has overtaken it.
        self._proven = _SMALLEST
        self._queue: deque[bytes] = deque()
        self._queued = self._flying_bytes = 0
        self._accepted = self._done = 0  # bytes so far: taken from the program, and no longer here
        self._flying: dict[Transfer, int] = {}
        self._changed = threading.Condition(threading.Lock())
        self._pumping = False
        self._cancelled = False
        self._closed = False
        self._fault: Exception | None = None
        self._error: Exception | None = None

    def __len__(self) -> int:
        return self._queued + self._flying_bytes

    def attach(self, device: Device | None, endpoint: int = 0) -> None:
        """Send to this endpoint from now on; None: writes wait until there is a device again."""
        with self._changed:
            self._device, self._endpoint = device, endpoint
            self._chunk, self._proven = CHUNK, _SMALLEST
            self._drop_queue()
            self._changed.notify_all()
        self._pump()

    def write(self, data: Buffer, timeout: float | None, *, through: bool = False) -> int:
        """Take `data`; how many bytes of it were taken within `timeout` seconds or before `cancel`.

        through: wait until the device has taken them, and count those only.
        Raises the device's error for earlier data, or why it is gone.
        """
        rest = memoryview(bytes(data))
        deadline = None if timeout is None else time.monotonic() + timeout
        taken = target = 0
        while taken < len(rest):
            with self._changed:
                self._raise_fault()
                room = self._room()
                if not room:
                    if not self._wait(deadline):
                        break
                    continue
                piece = bytes(rest[taken : taken + room])
                self._queue.append(piece)
                self._queued += len(piece)
                taken += len(piece)
                self._accepted += len(piece)
                target = self._accepted
            self._pump()
        if not through or not taken:
            return taken
        with self._changed:
            while self._done < target:
                self._raise_fault()
                if not self._wait(deadline):
                    return max(0, taken - (target - self._done))
        return taken

    def urgent(self, data: bytes) -> None:
        """Send before everything that waits, flow control or not: XON and XOFF."""
        with self._changed:
            device, transfer = self._device, Transfer(self._urb(data), self._sent_apart, awaited=False)
        if device is not None:
            device.submit(transfer)

    def drain(self, timeout: float | None) -> bool:
        """Wait until all was taken by the device; False after `timeout` seconds without progress, or `cancel`."""
        deadline, left = None, len(self) + 1
        with self._changed:
            while len(self):
                self._raise_fault()
                if timeout is not None and len(self) < left:
                    deadline, left = time.monotonic() + timeout, len(self)
                if not self._wait(deadline):
                    return False
            self._raise_fault()
            return True

    def pump(self) -> None:
        """Flow control may have changed its mind."""
        with self._changed:
            self._changed.notify_all()
        self._pump()

    def purge(self) -> None:
        """Drop what was not sent, and cancel what the device has not taken."""
        with self._changed:
            self._drop_queue()
            device, flying = self._device, list(self._flying)
            self._changed.notify_all()
        for transfer in flying:
            if device is not None:
                device.cancel(transfer)

    def cancel(self) -> None:
        """Have the write that waits, or else the next one that would, return."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Nothing can be written any more, for the reason in `error`."""
        with self._changed:
            self._error = error
            self._drop_queue()
            self._changed.notify_all()

    def close(self) -> None:
        """Writes that wait return."""
        self.purge()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop_queue(self) -> None:
        self._done += self._queued
        self._queue.clear()
        self._queued = 0

    def _room(self) -> int:
        if self._device is None or self._stopped():
            return 0
        return max(0, CAPACITY - len(self))

    def _wait(self, deadline: float | None) -> bool:
        """False at the deadline, when cancelled or closed; `_changed` is held."""
        if self._cancelled or self._closed:
            self._cancelled = False
            return False
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        self._changed.wait(None if left is None else min(left, _LONGEST_WAIT))
        return not self._closed

    def _raise_fault(self) -> None:
        if self._error is not None:
            raise self._error
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _pump(self) -> None:
        """Submit what may go. One thread at a time does it, and looks again for the others."""
        while True:
            with self._changed:
                data = b"" if self._pumping else self._next()
                if not data or self._device is None:
                    return
                self._pumping = True
                device = self._device
                transfer = self._transfer(data)
                self._flying[transfer] = len(data)
                self._flying_bytes += len(data)
            try:
                device.submit(transfer)
            finally:
                self._pumping = False

    def _next(self) -> bytes:
        """The next chunk, nothing if it has to wait."""
        if not self._queue or len(self._flying) >= DEPTH or self._device is None or self._stopped():
            return b""
        size = min(self._queued, self._chunk)
        if size > self._proven and self._flying:
            return b""
        parts, missing = [], size
        while missing:
            part = self._queue.popleft()
            if len(part) > missing:
                self._queue.appendleft(part[missing:])
                part = part[:missing]
            parts.append(part)
            missing -= len(part)
        self._queued -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _transfer(self, data: bytes) -> Transfer:
        transfer = Transfer(self._urb(data), awaited=False)
        transfer.intercept(lambda completion: self._sent(transfer, completion))
        return transfer

    def _urb(self, data: bytes) -> Urb:
        return Urb(TransferType.BULK, self._endpoint, len(data), data)

    def _sent(self, transfer: Transfer, completion: Completion) -> None:
        status, data = completion.status, bytes(transfer.urb.data)
        with self._changed:
            size = self._flying.pop(transfer, 0)
            self._flying_bytes -= size
            self._done += size
            if not status:
                self._proven = max(self._proven, size)
            elif status in TOO_LARGE and size > _SMALLEST:
                self._chunk = max(_SMALLEST, size // 2)
                self._queue.appendleft(data)
                self._queued += size
                self._done -= size
            elif status not in GONE and status not in UNLINKED:
                kind = TransferTimeout if status in TIMED_OUT else TransferFailed
                self._fault = kind(f"{size} bytes could not be written: {status_name(status)}", status, self._endpoint)
            self._changed.notify_all()
        if status and status not in GONE and status not in TOO_LARGE and status not in UNLINKED:
            self._on_stall(transfer.urb.endpoint)
        self._pump()

    def _sent_apart(self, completion: Completion) -> None:
        """Nobody waits for it; that a device is gone is noticed elsewhere."""
