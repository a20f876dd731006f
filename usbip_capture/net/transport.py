"""How bytes reach a peer: what the data path needs of a connection, whatever carries it.

A transport does its work, encryption for example, on the thread that calls it: handing over to another thread doubles
a round trip. A plain socket is one; so is the end of a socketpair whose other end a program has as its standard input
and output, with a text as its peer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from usbip_capture.net.tcp_info import round_trip
from usbip_capture.system.compiling import mypyc_attr
from usbip_capture.system.durations import milliseconds
from usbip_capture.usb.urb import Buffer

#: A peer that takes nothing for this long is lost, in seconds.
SEND_TIMEOUT = 30.0
#: Seconds after which who sends looks whether it is to be broken off.
_LOOK_AGAIN = 0.1
#: Parts from this size on are sent as they are; below it joining them costs less than a longer system call.
_JOIN_BELOW = 16 << 10
#: A time-out that the kernel keeps costs no system call of its own, but may be so many seconds late.
_KERNEL_LATE = 0.02
_SCATTER = hasattr(socket.socket, "recvmsg_into")  # not on Windows
_SENDS_PARTS = hasattr(socket.socket, "sendmsg")  # nor is this
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)  # wherever the kernel keeps time-outs
# struct linger: on, for 0 seconds.
_LINGER = struct.pack("@HH" if os.name == "nt" else "@ii", 1, 0)


def _timeval_format() -> str:
    """The format of a struct timeval as this kernel takes it for SO_RCVTIMEO; empty where that is not known.

    Ref: Linux include/uapi/asm-generic/socket.h: SO_RCVTIMEO is one of two options, by the size of time_t
    """
    for form in ("@ll", "@qq") if os.name == "posix" else ():
        # One that is too short is refused; one of another meaning does not come back as it was given.
        value = struct.pack(form, 7, 0)
        try:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 64) == value:
                    return form
        except OSError:
            pass
    return ""


#: A struct timeval, which has another size where a 32-bit system counts time in 64 bits.
_TIMEVAL = _timeval_format()
_KERNEL_TIMEOUTS = bool(_TIMEVAL)


@mypyc_attr(native_class=False)
class CarrierFailed(ConnectionAbortedError):
    """What carries the bytes has failed, and its reason is known: `str` and `strerror` are a whole sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(errno.ECONNABORTED, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(slots=True, frozen=True)
class NonBlocking:
    """A transport for a loop over many: what would have to wait raises BlockingIOError instead.

    fileno: readable when there is more to receive, writable when more can be sent; but for what is `pending`.
    receive: up to so many bytes, `b""` at the end of the stream. Fewer than asked for: nothing is pending any more.
    send: some of the bytes; how many.
    pending: bytes that were taken off the descriptor, which is not readable for their sake; `receive` returns them
    before it takes more.
    """

    fileno: int
    receive: Callable[[int], bytes]
    send: Callable[[Buffer], int]
    pending: Callable[[], int]


@mypyc_attr(allow_interpreted_subclasses=True)
class Transport(metaclass=ABCMeta):
    """A stream of bytes to one peer. One thread at a time receives, another one may send meanwhile, any shuts it down.

    peer: who is there, for sentences and logs: an address, or a text. opening: seconds that its first bytes may take
    beside what they take otherwise, because what carries them still connects. fileno: readable whenever `receive` would
    not wait; -1 if there is no such descriptor.
    """

    peer: str
    opening: float = 0.0
    fileno: int = -1

    @abstractmethod
    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Put what has come into `buffer`; how many bytes, 0 at the end of the stream.

        Waits only while there is nothing, here or in the system. Raises TimeoutError if nothing has come within
        `timeout` seconds, or up to 20 ms less (None: not in the next hour); OSError if the connection is broken.
        """

    def receive(self, size: int, timeout: float | None) -> bytes:
        """The same: at most `size` bytes of what has come, `b""` at the end of the stream."""
        buffer = bytearray(size)
        received = self.receive_into(memoryview(buffer), timeout)
        return bytes(memoryview(buffer)[:received])

    def receive_scattered(self, buffers: list[memoryview], timeout: float | None) -> int:
        """The same into several buffers, one after the other; some transports fill the first one only."""
        return self.receive_into(buffers[0], timeout)

    @abstractmethod
    def send(self, parts: list[Buffer]) -> None:
        """Send all of it; the parts leave together. Raises OSError, also if the peer takes nothing for SEND_TIMEOUT."""

    @abstractmethod
    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        """Send what can be sent without waiting; how many bytes. Raises OSError, BlockingIOError if none can.

        grace: seconds that are better spent waiting than with a hand-over to a thread that waits; some transports do
        not. What was not sent comes first in what is sent next, unless the stream is ended; where none could be sent,
        that is no shorter: one that encrypts has it in a record already.
        """

    @abstractmethod
    def wait_to_send(self, timeout: float) -> bool:
        """Whether some can be sent now, or the connection is broken; waits for that, at most `timeout` seconds."""

    @abstractmethod
    def nonblocking(self) -> NonBlocking:
        """From now on nothing waits, and it is the caller that limits how long a peer may take nothing."""

    @abstractmethod
    def end_sending(self) -> None:
        """Have the peer see the end of the stream; it may go on sending. Raises OSError."""

    @abstractmethod
    def shut_down(self) -> None:
        """End it both ways, now: whoever receives or sends returns or raises OSError. From any thread; never raises.

        After `reset_on_close` the peer is not shown an end, where there is a way; who sends is not woken then, and who
        receives may get what has come before.
        """

    @abstractmethod
    def reset_on_close(self) -> None:
        """Have `close` reset the connection, as broken and not ended, where there is a way. Never raises."""

    def round_trip(self) -> float | None:
        """Seconds that a packet takes to the peer and back, as the system measures it; None where it does not."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the descriptor; nothing is sent for it. Not while a thread receives or sends. May be called again."""


@mypyc_attr(allow_interpreted_subclasses=True)
class SocketTransport(Transport):
    """A connected socket, which is the transport's own from now on."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self.fileno = sock.fileno()
        self._sock = self._sender = sock
        self._recv_into = sock.recv_into
        self._limit: float | None = None
        self._sending_limit = SEND_TIMEOUT
        self._resets = False
        sock.settimeout(None)
        if not _KERNEL_TIMEOUTS:
            self._limit = -1.0
            # Two Python objects on one connection: there a time-out is a property of the object.
            self._sender = sock.dup()
        limit_sending(self._sender)

    def __repr__(self) -> str:
        return f"<SocketTransport to {self.peer}>"

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        if timeout != self._limit:
            self._wait_at_most(timeout)
        try:
            return self._recv_into(buffer)
        except OSError as error:
            raise _in_terms_of_transports(error) from None

    def receive(self, size: int, timeout: float | None) -> bytes:
        if timeout != self._limit:
            self._wait_at_most(timeout)
        try:
            return self._sock.recv(size)
        except OSError as error:
            raise _in_terms_of_transports(error) from None

    def receive_scattered(self, buffers: list[memoryview], timeout: float | None) -> int:
        if not _SCATTER:
            return self.receive_into(buffers[0], timeout)
        if timeout != self._limit:
            self._wait_at_most(timeout)
        try:
            return self._sock.recvmsg_into(buffers)[0]
        except OSError as error:
            raise _in_terms_of_transports(error) from None

    def send(self, parts: list[Buffer]) -> None:
        sock = self._sender
        if self._sending_limit != SEND_TIMEOUT:
            self._send_within(SEND_TIMEOUT)
        if len(parts) == 1:
            sock.sendall(parts[0])
        elif sum(map(len, parts)) < _JOIN_BELOW:
            sock.sendall(b"".join(parts))
        else:
            send(sock, parts)

    def send_now(self, parts: list[Buffer], grace: float = 0.0) -> int:
        sock = self._sender
        if _KERNEL_TIMEOUTS:
            if len(parts) == 1:
                return sock.send(parts[0], _DONT_WAIT)
            if sum(map(len, parts)) < _JOIN_BELOW:
                return sock.send(b"".join(parts), _DONT_WAIT)
            if not grace:
                return sock.sendmsg(parts, (), _DONT_WAIT)
            if grace != self._sending_limit:
                self._send_within(grace)
            return sock.sendmsg(parts)
        sock.settimeout(0.0)
        try:
            return sock.send(b"".join(parts))
        finally:
            limit_sending(sock)

    def wait_to_send(self, timeout: float) -> bool:
        return is_writable(self._sender, timeout)

    def nonblocking(self) -> NonBlocking:
        sock = self._sock
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
            # It would also end connections whose receiver has been too busy to take anything for a while.
            _set_option(sock, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        return NonBlocking(sock.fileno(), sock.recv, sock.send, int)

    def end_sending(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        shut_down(self._sock, resets=self._resets)

    def reset_on_close(self) -> None:
        self._resets = True
        reset_on_close(self._sock)

    def round_trip(self) -> float | None:
        return round_trip(self._sock)

    def close(self) -> None:
        self._sock.close()
        self._sender.close()

    def release(self) -> socket.socket:
        """The socket, blocking and without limits of ours, for who uses it from now on; not of the transport any more.

        Raises OSError if the peer has left.
        """
        if self._sender is not self._sock:
            self._sender.close()
        self._sock.settimeout(None)
        if _KERNEL_TIMEOUTS:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._sock.setsockopt(socket.SOL_SOCKET, option, _timeval(0))
        return self._sock

    def _send_within(self, limit: float) -> None:
        """Where the kernel keeps the limit: of any system call that sends."""
        limit_sending(self._sender, limit)
        self._sending_limit = limit

    def _wait_at_most(self, timeout: float | None) -> None:
        """Have the next system call wait for at most `timeout` seconds. Raises TimeoutError if that is over already."""
        if timeout is not None and timeout <= 2 * _KERNEL_LATE and _KERNEL_TIMEOUTS:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN)
            if not poller.poll(max(timeout, 0.0) * 1000):
                raise TimeoutError
            return
        self._limit = timeout
        if _KERNEL_TIMEOUTS:
            value = _timeval(timeout - _KERNEL_LATE) if timeout is not None else _timeval(0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        else:
            # Both ends of a duplicated socket are non-blocking by now, so that "for ever" needs a number as well.
            self._sock.settimeout(3600.0 if timeout is None else max(timeout, 0.0))


def send(sock: socket.socket, parts: list[Buffer]) -> None:
    """Send one message, whole; its parts leave together. Raises OSError."""
    size = sum(map(len, parts))
    if len(parts) == 1:
        sock.sendall(parts[0])
    elif size < _JOIN_BELOW or not _SENDS_PARTS:
        sock.sendall(b"".join(parts))
    elif (sent := sock.sendmsg(parts)) < size:
        _send_rest(sock, parts, sent)


def send_by(transport: Transport, data: Buffer, deadline: float, is_ended: Callable[[], bool] = lambda: False) -> None:
    """Send all of it by `deadline`, on the monotonic clock. Raises OSError, TimeoutError if the peer takes longer.

    is_ended: whether it is to be broken off, for what ends a connection does not wake who sends.
    """
    rest = memoryview(data)
    while rest:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it does not read the answer")
        is_ready = transport.wait_to_send(min(left, _LOOK_AGAIN))
        if is_ended():
            raise ConnectionAbortedError("it is ended before it has read the answer")
        if is_ready:
            with suppress(BlockingIOError):  # a transport that has to send something of its own before
                sent = transport.send_now([rest])
                rest = rest[sent:]


def is_writable(sock: socket.socket, timeout: float) -> bool:
    """Whether it takes something, or is broken; waits for that, at most `timeout` seconds."""
    if not hasattr(select, "poll"):  # Windows, where `select` takes every socket
        return bool(select.select([], [sock], [], timeout)[1])
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    return bool(poller.poll(milliseconds(timeout)))


def limit_sending(sock: socket.socket, timeout: float | None = None) -> None:
    """Sending raises OSError when the peer takes nothing for `timeout` seconds, SEND_TIMEOUT if not given.

    Where the kernel keeps no such limit it is Python's, which is one for receiving as well: SEND_TIMEOUT then.
    """
    if _KERNEL_TIMEOUTS:
        _set_option(sock, socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT if timeout is None else timeout))
    else:
        sock.settimeout(SEND_TIMEOUT)


def shut_down(sock: socket.socket, *, resets: bool = False) -> None:
    """As `Transport.shut_down`. resets: after `reset_on_close`."""
    try:
        # A FIN that is sent first is all that a peer sees: it takes a half reply for all there is. Windows wakes who
        # receives for both ways only.
        socket.socket.shutdown(sock, socket.SHUT_RD if resets and os.name == "posix" else socket.SHUT_RDWR)
    except OSError:  # the peer was quicker
        pass


def reset_on_close(sock: socket.socket) -> None:
    """Have closing reset the connection: it is broken, not ended."""
    _set_option(sock, socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


def _set_option(sock: socket.socket, level: int, name: int, value: int | bytes) -> None:
    try:
        sock.setsockopt(level, name, value)
    except OSError:
        pass  # the peer has left, and some systems report it here: the next call does, on all of them


def _in_terms_of_transports(error: OSError) -> OSError:
    """TimeoutError is that nothing has come; but where TCP gave up the connection, it is broken."""
    if isinstance(error, BlockingIOError):
        return TimeoutError()
    if isinstance(error, TimeoutError) and error.errno is not None:
        return ConnectionAbortedError(error.errno, error.strerror)
    return error


def _timeval(seconds: float) -> bytes:
    return struct.pack(_TIMEVAL, int(seconds), int(seconds % 1 * 1e6))


def _send_rest(sock: socket.socket, parts: Iterable[Buffer], sent: int) -> None:
    for part in parts:
        if sent < len(part):
            sock.sendall(memoryview(part)[sent:])
            sent = 0
        else:
            sent -= len(part)
