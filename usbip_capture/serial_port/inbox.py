"""What has come from the wire and was not read yet: filled by the device's thread, emptied by the program's."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from usbip_capture.errors import UsbipError

#: Bytes from which on the device is not asked for more, and below which it is again.
HIGH, LOW = 1 << 20, 1 << 19
_LONGEST_WAIT = 86_400.0


class Inbox:
    """Bytes in their order. on_room: called, by a reader, when there is room again after `put` has found none.

    Once `fail` was called, what is there can still be read; then reading raises the error.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._data = bytearray()
        self._arrived = 0.0
        self._changed = threading.Condition(threading.Lock())
        self._full = False
        self._cancelled = False
        self._closed = False
        self._error: Exception | None = None
        self._signal: tuple[socket.socket, socket.socket] | None = None
        self._signalled = False

    def __len__(self) -> int:
        return len(self._data)

    def put(self, data: bytes) -> bool:
        """Add what has come; False when there should be no more for now."""
        with self._changed:
            if data:
                self._data += data
                self._arrived = time.monotonic()
                self._show()
                self._changed.notify_all()
            if len(self._data) >= HIGH:
                self._full = True
            return not self._full

    def read(self, size: int, timeout: float | None, inter_byte: float | None = None) -> bytes:
        """`size` bytes, or what there is after `timeout` seconds, `inter_byte` seconds of silence, or `cancel`."""
        if size <= LOW:
            return self._read(size, timeout, inter_byte) if size > 0 else b""
        # More than is kept here: taken in pieces, or the device would wait for us, and we for it.
        deadline = None if timeout is None else time.monotonic() + timeout
        taken = bytearray()
        while len(taken) < size:
            piece = min(size - len(taken), LOW)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                got = self._read(piece, left, inter_byte)
            except UsbipError:
                if not taken:
                    raise
                break
            taken += got
            if len(got) < piece:
                break
        return bytes(taken)

    def read_until(self, expected: bytes, size: int | None, timeout: float | None) -> bytes:
        """Up to and with `expected`, or at most `size` bytes, or what there is after `timeout` seconds or `cancel`.

        Also what there is when no more than that is kept here, and `expected` is not in it.
        """
        searched, end = 0, -1

        def found() -> bool:
            nonlocal searched, end
            at = self._data.find(expected, searched)
            searched = max(0, len(self._data) - len(expected) + 1)
            end = at + len(expected) if at >= 0 else -1
            if size is not None and (end > size or end < 0) and len(self._data) >= size:
                end = size
            return end >= 0 or self._full

        with self._changed:
            self._wait(found, timeout, None)
            return self._take(end if end >= 0 else len(self._data))

    def clear(self) -> None:
        """Forget what was not read."""
        with self._changed:
            if self._data:
                self._take(len(self._data))

    def cancel(self) -> None:
        """Have the read that waits, or else the next one, return with what there is."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Nothing comes any more, for the reason in `error`."""
        with self._changed:
            self._error = error
            self._show()
            self._changed.notify_all()

    def close(self) -> None:
        """Reads that wait return what there is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._signal is not None:
                for end in self._signal:
                    end.close()
                self._signal = None

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to read, for `select`; it carries no data."""
        with self._changed:
            if self._signal is None:
                self._signal = socket.socketpair()
                for end in self._signal:
                    end.setblocking(False)
                self._signalled = False
                self._show()
            return self._signal[0].fileno()

    def _read(self, size: int, timeout: float | None, inter_byte: float | None) -> bytes:
        with self._changed:
            self._wait(lambda: len(self._data) >= size, timeout, inter_byte)
            return self._take(size)

    def _wait(self, enough: Callable[[], bool], timeout: float | None, inter_byte: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not enough() and not self._closed and self._error is None:
            if self._cancelled:
                self._cancelled = False
                break
            until = deadline
            if inter_byte is not None and self._data:
                silent = self._arrived + inter_byte
                until = silent if until is None else min(until, silent)
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self._changed.wait(None if left is None else min(left, _LONGEST_WAIT))
        if self._error is not None and not self._data and not self._closed:
            raise self._error

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        if self._full and len(self._data) < LOW:
            self._full = False
            self._changed.release()
            try:
                self._on_room()
            finally:
                self._changed.acquire()
        self._show()
        return taken

    def _show(self) -> None:
        """Make the descriptor readable exactly while there is something to learn by reading."""
        if self._signal is None:
            return
        wanted = bool(self._data) or self._error is not None
        if wanted and not self._signalled:
            self._signal[1].send(b"\0")
        elif not wanted and self._signalled:
            self._signal[0].recv(16)
        self._signalled = wanted
