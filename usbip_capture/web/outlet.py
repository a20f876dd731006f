"""A capture that leaves as the body of an answer, while it is made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

from usbip_capture.capture.sinks import ReaderGone, Sink, SinkAborted
from usbip_capture.usb.urb import Buffer

#: Bytes that wait for a client which reads slowly; then the capture waits, and drops what its queue cannot hold.
_MOST = 1 << 20
_ABORT_CHECK = 0.1


class Outlet(Sink):
    """What the capture's thread writes is taken from `parts`, in the event loop `loop`, until `leave`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("a client of the dashboard")
        self._loop = loop
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self._left = self._ended = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        raw = b"".join(buffers)
        with self._changed:
            while self._size > _MOST and not self._left:
                if self._aborted:
                    raise SinkAborted(f"{self.name} has stopped reading")
                self._changed.wait(_ABORT_CHECK)
            if self._left:
                raise ReaderGone(f"{self.name} has left")
            self._waiting.append(raw)
            self._size += len(raw)
        self.written += len(raw)
        self._wake()

    def reader_gone(self) -> bool:
        return self._left

    def close(self) -> None:
        self._ended = True
        self._wake()

    def leave(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    async def parts(self) -> AsyncIterator[bytes]:
        """What is written, until it is closed."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            with self._changed:
                found, self._waiting, self._size = self._waiting, [], 0
                ended = self._ended
                self._changed.notify_all()
            if found:
                yield b"".join(found)
            if ended:
                return

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop has ended, and with it who read
            self.leave()
