"""A capture that leaves as the body of an answer, while it is made."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

from usbip_capture.capture.shared_writer import NOTES_INTERFACE, pack_note
from usbip_capture.records.pcapng import pack_drops, without_packets

#: Bytes that wait for a viewer which reads slowly, others having them in common: what comes then is dropped.
MOST = 16 << 20
#: Bytes that wait before what was kept of devices has to, and seconds between two looks.
_PACE, _LOOK = 1 << 20, 0.1


class Outlet:
    """What one viewer has still to read, in the event loop `loop`. dropped: packets that found no room.

    alive: each so many seconds it is sent that count, so that it notices that it is sent nothing; 0: not.
    left: nobody reads any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, alive: float = 0.0) -> None:
        self.dropped = 0
        self._reported = 0  # of these
        self._alive = alive
        self._is_due = self._has_begun = False
        self._loop = loop
        self._ready = asyncio.Event()
        self._is_awake = False
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self.left = self._ended = False

    def put(self, blocks: bytes, lost: int = 0) -> None:
        """Whole blocks; never waits. What is more than MOST is dropped: its packets, not the other blocks.

        lost: packets that are missing in them.
        """
        with self._changed:
            if self.left:
                return
            self.dropped += lost
            if self._size + len(blocks) > MOST:
                packets, blocks = without_packets(blocks)
                self.dropped += packets
            self._waiting.append(blocks)
            self._size += len(blocks)
            wake, self._is_awake = not self._is_awake, True
        if wake:
            self._wake()

    def begin(self, blocks: bytes) -> None:
        """What its capture begins with, however long."""
        with self._changed:
            self._waiting.append(blocks)
            self._size += len(blocks)
            self._is_awake = True
        self._wake()

    def wait_for_room(self, until: Callable[[], bool]) -> None:
        """Return when there is some, or nobody reads any more, or it is not to be waited for."""
        with self._changed:
            while self._size > _PACE and not self.left and not until():
                self._changed.wait(_LOOK)

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake()

    def leave(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self.left = True
            self._waiting = []
            self._changed.notify_all()

    async def parts(self) -> AsyncIterator[bytes]:
        """What comes, until the end; where packets were dropped, how many."""
        self._tick()
        while True:
            await self._ready.wait()
            self._ready.clear()
            with self._changed:
                ended, self._is_awake = self._ended, False
                found, self._waiting, self._size = self._waiting, [], 0
                if self.dropped > self._reported or (self._is_due and self._has_begun):
                    found.append(self._drops())
                self._is_due = False
                self._has_begun = self._has_begun or bool(found)
                self._changed.notify_all()
            if found:
                yield b"".join(found)
            if ended:
                return

    def _drops(self) -> bytes:
        now = time.time_ns()
        count, self._reported = self.dropped - self._reported, self.dropped
        text = f"usbip-capture: {count} packets found no room: this viewer is slow"
        return (pack_note(text, now) if count else b"") + pack_drops(NOTES_INTERFACE, now, self.dropped)

    def _tick(self) -> None:
        """Have something sent soon, again and again. In the event loop."""
        if self._alive and not self.left and not self._ended:
            self._is_due = True
            self._ready.set()
            self._loop.call_later(self._alive, self._tick)

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop has ended, and with it who read
            self.leave()
