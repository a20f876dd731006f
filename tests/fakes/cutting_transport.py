"""A transport that lets so many bytes through to its peer, and takes nothing more."""

from __future__ import annotations

import threading

from usbip_capture.net.transport import NonBlocking, Transport
from usbip_capture.usb.urb import Buffer


class CuttingTransport(Transport):
    """Around another one, which is its own from now on. cut: set when it has not taken all that it was to send."""

    def __init__(self, inner: Transport) -> None:
        self.peer = inner.peer
        self.cut = threading.Event()
        self._inner = inner
        self._left: int | None = None
        self._ended = threading.Event()

    def arm(self, count: int) -> None:
        """Let `count` more bytes through."""
        self._left = count

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        return self._inner.receive_into(buffer, timeout)

    def send(self, parts: list[Buffer]) -> None:
        raise AssertionError("a server never waits in a system call for a client that takes nothing")

    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        if self._ended.is_set():
            raise BrokenPipeError
        if self._left is None:
            return self._inner.send_now(parts, grace)
        data = b"".join(parts)
        passed = data[: self._left]
        if passed:
            self._left -= self._inner.send_now([passed], grace)
        if len(passed) < len(data):
            self.cut.set()
        if not passed:
            raise BlockingIOError
        return len(passed)

    def wait_to_send(self, timeout: float) -> bool:
        if self._left == 0:
            self.cut.set()
            return self._ended.wait(timeout)
        return self._inner.wait_to_send(timeout)

    def nonblocking(self) -> NonBlocking:
        return self._inner.nonblocking()

    def end_sending(self) -> None:
        self._inner.end_sending()

    def shut_down(self) -> None:
        self._ended.set()
        self._inner.shut_down()

    def reset_on_close(self) -> None:
        self._inner.reset_on_close()

    def close(self) -> None:
        self._inner.close()
