"""The bounded queue between those who capture and the thread that writes: one for all channels of a capture."""

from __future__ import annotations

import threading
from typing import Any

from usbip_capture.capture.remarks import Remark

#: Bytes that remarks may take until they are written; further ones are left out, and counted.
REMARK_BYTES = 1 << 20


class EventQueue:
    """What is captured and not yet written. All of it is read and changed under `lock`.

    used: bytes taken by what is queued; log_used: by messages of logs. reserved: bytes for the completions of URBs
    that are out.
    remark_used: bytes taken by remarks; remarks_lost: those that found no room.
    ended: nothing is captured any more. idle: the writer does not look by itself; who queues something clears this and
    calls `rouse`, without the lock.
    remarks: for the next event of any channel. interfaces: how many there are.
    """

    def __init__(self, budget: int) -> None:
        self.lock = threading.Lock()
        self._roused = _taken_lock()
        self.items: list[Any] = []  # of `channel.Item`
        self.budget = budget
        # Half of the queue may be spoken for by completions to come: more would refuse submits for nothing.
        self.max_reserved = budget // 2
        self.used = self.log_used = self.reserved = 0
        self.last_urb_id = 0
        self.interfaces = 0
        self.remarks: list[Remark] = []
        self.remark_used = self.remarks_lost = 0
        self.idle = False
        self.ended = False

    def rouse(self) -> None:
        """Have the writer's `sleep` end; the next one, if it is awake."""
        try:
            self._roused.release()
        except RuntimeError:  # it is roused already
            pass

    def sleep(self, seconds: float) -> bool:
        """For the writer: until `rouse`, which makes it True, or so many seconds are over."""
        return self._roused.acquire(timeout=seconds)

    def remark(self, waiting: list[Remark], text: str) -> None:
        """Add a remark to those that wait, if there is room. To be called under `lock`."""
        remark = Remark(text)
        if self.remark_used + remark.cost > REMARK_BYTES:
            self.remarks_lost += 1
            return
        self.remark_used += remark.cost
        waiting.append(remark)

    def disown(self) -> None:
        """In a child process, whose parent writes the capture: drop everything, and take no more."""
        self.lock = threading.Lock()
        self._roused = _taken_lock()
        self.items = []
        self.ended = True


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
