"""Both directions between a port of pyserial and whatever is at the other side, on one thread."""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod

from serial import Serial

#: Bytes at a time. What the other side does not take stays in the port.
_CHUNK = 64 << 10
_IDLE = 0.25
#: Seconds of silence of the device after which a far end that has nothing more to say is done: `echo AT | nc HOST PORT`
#: wants the answer.
_LINGER = 0.5


class FarEnd(ABC):
    """The other side of a port."""

    @abstractmethod
    def fileno(self) -> int:
        """For `select`."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """What the other side wants to be written; None when it has said all, and perhaps still listens."""

    @abstractmethod
    def send(self, data: bytes) -> int:
        """Hand over what came from the device; how many bytes of it were taken. Must not wait. Raises OSError."""

    def idle(self) -> None:  # noqa: B027  most have nothing to do then
        """Called some times a second."""


def copy(port: Serial, far: FarEnd) -> None:
    """Copy until the far end is over. Raises SerialException when the device is gone."""
    waiting, over = b"", 0.0
    while not over or waiting or time.monotonic() < over:
        # The port is not read while the other side is slow: then it is the device that has to wait.
        ours, theirs = port.fileno(), far.fileno()
        readable, writable, _ = select.select(
            [theirs] * (not over) + [ours] * (not waiting),
            [theirs] if waiting else [],
            [],
            max(0.0, over - time.monotonic()) if over and not waiting else _IDLE,
        )
        if theirs in readable:
            data = far.receive()
            if data is None:
                over = time.monotonic() + _LINGER
            elif data:
                port.write(data)
        if ours in readable:
            waiting = port.read(min(port.in_waiting, _CHUNK))
            over = time.monotonic() + _LINGER if over else 0.0
        if waiting and (theirs in writable or ours in readable):
            try:
                waiting = waiting[far.send(waiting) :]
            except BlockingIOError:
                pass
            except OSError:
                return
        far.idle()
