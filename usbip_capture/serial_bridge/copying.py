"""Both directions between a port of pyserial and whatever is at the other side, on one thread."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod

from serial import Serial

#: Bytes at a time. What the other side does not take stays in the port.
_CHUNK = 64 << 10
_IDLE = 0.25


class FarEnd(ABC):
    """The other side of a port."""

    @abstractmethod
    def fileno(self) -> int:
        """For `select`."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """What the other side wants to be written; None at its end."""

    @abstractmethod
    def send(self, data: bytes) -> int:
        """Hand over what came from the device; how many bytes of it were taken. Must not wait. Raises OSError."""

    def idle(self) -> None:  # noqa: B027  most have nothing to do then
        """Called some times a second."""


def copy(port: Serial, far: FarEnd) -> None:
    """Copy until the far end is over. Raises SerialException when the device is gone."""
    waiting = b""
    while True:
        # The port is not read while the other side is slow: then it is the device that has to wait.
        ours, theirs = port.fileno(), far.fileno()
        readable, writable, _ = select.select(
            [theirs] if waiting else [theirs, ours], [theirs] if waiting else [], [], _IDLE
        )
        if theirs in readable:
            data = far.receive()
            if data is None:
                return
            if data:
                port.write(data)
        if ours in readable:
            waiting = port.read(min(port.in_waiting, _CHUNK))
        if waiting and (theirs in writable or ours in readable):
            try:
                waiting = waiting[far.send(waiting) :]
            except BlockingIOError:
                pass
            except OSError:
                return
        far.idle()
