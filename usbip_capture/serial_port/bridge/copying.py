"""Both directions between a port of pyserial and whatever is at the other side, on one thread."""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from serial import Serial

from usbip_capture.system.durations import milliseconds

#: Bytes at a time. What the other side does not take stays in the port.
_CHUNK = 64 << 10
_IDLE = 0.25
#: Seconds of silence of the device after which a far end with nothing more to send is done: `echo AT | nc HOST PORT`
#: wants the answer.
_LINGER = 0.5
#: Seconds between two tries to write to a device that takes nothing now; a port cannot be polled for that.
_RETRY = 0.005
#: Seconds without progress after which what a far end has left behind is given up.
_STALLED = 10.0


class FarEndFault(Exception):
    """The far end has sent what cannot be: it is to be disconnected."""


class FarEnd(ABC):
    """The other side of a port."""

    @abstractmethod
    def fileno(self) -> int:
        """For `poll`."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """What the other side wants to be written; None when it has sent all, and perhaps still listens.

        Raises FarEndFault.
        """

    @abstractmethod
    def send(self, data: bytes) -> int:
        """Pass on what came from the device; how many bytes of it were taken. Must not wait. Raises OSError."""

    def idle(self) -> None:  # noqa: B027  most have nothing to do then
        """Called some times a second. Raises FarEndFault."""


def copy(port: Serial, far: FarEnd) -> None:
    """Copy until the far end is over. Raises SerialException when the device is gone, FarEndFault."""
    port.write_timeout = 0  # writing never waits: a device that takes nothing must not hide that the far end has left
    _Copying(port, far).run()


class _Copying:
    """What is on its way in both directions. Nothing waits but `_poll`."""

    def __init__(self, port: Serial, far: FarEnd) -> None:
        self._port = port
        self._far = far
        self._unsent = self._unwritten = b""  # to the far end, to the device
        self._over = 0.0  # when silence has been long enough; 0 while the far end may send
        self._progress = time.monotonic()

    def run(self) -> None:
        try:
            while self._goes_on():
                self._round()
        except _FarEndGone:
            pass

    def _goes_on(self) -> bool:
        now = time.monotonic()
        if not self._over:
            return True
        if self._unsent or self._unwritten:
            return now < self._progress + _STALLED
        return now < self._over

    def _round(self) -> None:
        # The port is not read while the other side is slow: then it is the device that has to wait.
        ours, theirs = self._port.fileno(), self._far.fileno()
        readable, writable, has_left = _poll(
            [theirs] * (not self._over and not self._unwritten) + [ours] * (not self._unsent),
            [theirs] if self._unsent else [],
            None if self._over else theirs,
            self._patience(),
        )
        if has_left and self._unwritten:
            self._over, self._progress = time.monotonic() + _LINGER, time.monotonic()
        if theirs in readable:
            self._receive()
        if self._unwritten:
            self._write()
        if ours in readable:
            self._unsent = self._port.read(min(self._port.in_waiting, _CHUNK))
            self._over = time.monotonic() + _LINGER if self._over else 0.0
        if self._unsent and (theirs in writable or ours in readable):
            self._send()
        self._far.idle()

    def _patience(self) -> float:
        if self._unwritten:
            return _RETRY
        return max(0.0, self._over - time.monotonic()) if self._over and not self._unsent else _IDLE

    def _receive(self) -> None:
        data = self._far.receive()
        if data is None:
            self._over = time.monotonic() + _LINGER
        else:
            self._unwritten = data

    def _write(self) -> None:
        taken = self._port.write(self._unwritten) or 0
        self._unwritten = self._unwritten[taken:]
        if taken:
            self._progress = time.monotonic()

    def _send(self) -> None:
        try:
            taken = self._far.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            raise _FarEndGone from error
        self._unsent = self._unsent[taken:]
        if taken:
            self._progress = time.monotonic()


class _FarEndGone(OSError):
    """Nothing can be sent to it any more."""


def _poll(
    reads: Sequence[int], writes: Sequence[int], peer: int | None, timeout: float
) -> tuple[set[int], set[int], bool]:
    """Which of these are ready, and whether `peer` has closed its side. As `select`, but for any number of a file."""
    if not hasattr(select, "poll"):  # Windows, where `select` takes every socket
        can_read, can_write, _ = select.select(reads, writes, [], timeout)
        return set(can_read), set(can_write), False
    closed = getattr(select, "POLLRDHUP", 0)
    events = dict.fromkeys((*reads, *writes), 0)
    for fd in reads:
        events[fd] |= select.POLLIN
    for fd in writes:
        events[fd] |= select.POLLOUT
    poller = select.poll()
    for fd, mask in events.items():
        poller.register(fd, mask)
    if peer is not None:
        poller.register(peer, events.get(peer, 0) | closed)
    found = dict(poller.poll(milliseconds(timeout)))
    trouble = select.POLLERR | select.POLLHUP
    readable = {fd for fd, mask in found.items() if fd in reads and mask & (select.POLLIN | trouble)}
    writable = {fd for fd, mask in found.items() if fd in writes and mask & (select.POLLOUT | trouble)}
    return readable, writable, peer is not None and bool(found.get(peer, 0) & (closed | trouble))
