"""TCP to a USB/IP server: options that every connection needs, errors as sentences."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Protocol

from usbip_capture.errors import RemoteProtocolError, ServerUnreachable
from usbip_capture.net.address import format_address
from usbip_capture.system.durations import milliseconds
from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.operations import Exchange


def _timeval_format() -> str:
    """The format of a struct timeval as this kernel takes it for SO_RCVTIMEO; empty where that cannot be said.

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


#: A peer that takes nothing for this long is lost, in seconds.
SEND_TIMEOUT = 30.0
#: Probes on an idle connection, seconds; a limit on what is sent and not acknowledged, milliseconds.
_TIMEOUTS = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPALIVE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 25_000),
)
#: An exchange that goes on gets more time: for each so many bytes a second, up to so many times its time-out.
_SLOWEST, _LONGEST = 1024, 4
#: Parts from this size on are sent as they are; below it joining them costs less than a longer system call.
_JOIN_BELOW = 16 << 10
#: A time-out that the kernel keeps costs no system call of its own, but may be so many seconds late.
_KERNEL_LATE = 0.02
#: A struct timeval, which has another size where a 32-bit system counts time in 64 bits.
_TIMEVAL = _timeval_format()
_KERNEL_TIMEOUTS = bool(_TIMEVAL)


def connect(host: str, port: int, timeout: float, service: str = "a USB/IP server") -> socket.socket:
    """A connection to `service`. Raises ServerUnreachable with the reason and what to try.

    timeout: seconds for each address that the name has; for all of them together four times as long.
    """
    where = format_address(host, port)
    try:
        sock = _connected(host, port, timeout)
    except (socket.gaierror, UnicodeError) as error:
        raise ServerUnreachable(f"the name {host!r} is not known: check the spelling, or use the IP address") from error
    except TimeoutError as error:
        raise ServerUnreachable(
            f"{where} does not answer within {timeout:g} s: is it switched on, and is a firewall in the way?"
        ) from error
    except ConnectionRefusedError as error:
        raise ServerUnreachable(f"nothing listens on {host} port {port}: does {service} run there?") from error
    except OSError as error:
        raise ServerUnreachable(f"no connection to {where}: {error.strerror or error}") from error
    try:
        set_options(sock)
    except OSError as error:
        sock.close()
        raise ServerUnreachable(f"{where} broke off the connection ({error.strerror or error})") from error
    return sock


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    """A connection to the first address of `host` that accepts one. Raises what the last one raised."""
    deadline = time.monotonic() + _LONGEST * timeout
    last: OSError = TimeoutError()
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        left = min(timeout, deadline - time.monotonic())
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left)
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last


def readable(sock: HasFileno, timeout: float) -> bool:
    """Whether `sock` has something to read, or its end, within `timeout` seconds."""
    if not hasattr(select, "poll"):  # Windows, where `select` takes every socket; elsewhere none from number 1024 on
        return bool(select.select([sock], [], [], timeout)[0])
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(milliseconds(timeout)))


def set_options(sock: socket.socket) -> None:
    """No delay, and keepalive after 10 s so that a server that vanished is noticed within half a minute."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TIMEOUTS:
        option = getattr(socket, name, None)
        if option is not None:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError as error:  # known by name, but not to this kernel
                if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):
                    raise


def exchange(sock: socket.socket, request: Exchange, where: str, timeout: float) -> None:
    """Send an OP request and read its whole reply. Errors name `where`.

    timeout: seconds for all of it, not for each part; a long reply gets a second more for each KiB that has come, up
    to four times the time-out. Raises RemoteProtocolError, ImportRefused or ServerUnreachable; the socket has no
    timeout afterwards.
    """
    wait = _Patience(sock, timeout)
    try:
        wait.limit()
        sock.sendall(request.request)
        while request.wanted:
            try:
                request.receive(wait.read(request.wanted))
            except RemoteProtocolError as error:
                raise type(error)(f"{where}: {error}") from error
    except TimeoutError as error:
        did = "has not finished its answer" if wait.received else "does not answer"
        raise ServerUnreachable(
            f"{where} accepts connections but {did} within {wait.allowed:.3g} s: is that a USB/IP server?"
        ) from error
    except OSError as error:
        raise ServerUnreachable(
            f"{where} broke off the connection ({error.strerror or error}): is that a USB/IP server?"
        ) from error
    sock.settimeout(None)


class _Patience:
    """How long the reply of one exchange is waited for. received: bytes of it so far."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self.received = 0
        self._sock = sock
        self._timeout = timeout
        self._started = time.monotonic()

    @property
    def allowed(self) -> float:
        """Seconds for the exchange, as far as it has come."""
        return min(self._timeout + self.received / _SLOWEST, self._timeout * _LONGEST)

    def limit(self) -> None:
        """Have the next call of the socket wait no longer than that. Raises TimeoutError."""
        left = self._started + self.allowed - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the end of the stream. Raises OSError."""
        data = b""
        while len(data) < size:
            self.limit()
            chunk = self._sock.recv(size - len(data))
            if not chunk:
                break
            data += chunk
            self.received += len(chunk)
        return data


def send(sock: socket.socket, parts: list[Buffer]) -> None:
    """Send one message, whole; its parts leave together. Raises OSError."""
    if len(parts) == 1:
        sock.sendall(parts[0])
    elif sum(map(len, parts)) < _JOIN_BELOW or not hasattr(sock, "sendmsg"):
        sock.sendall(b"".join(parts))
    else:
        _send_rest(sock, parts, sock.sendmsg(parts))


def limit_sending(sock: socket.socket, timeout: float = SEND_TIMEOUT) -> None:
    """Sending raises OSError when the peer takes nothing for `timeout` seconds.

    Where the kernel keeps no such limit it is Python's, which is one for receiving as well: SEND_TIMEOUT then.
    """
    if _KERNEL_TIMEOUTS:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))
    else:
        sock.settimeout(SEND_TIMEOUT)


class HasFileno(Protocol):
    """A socket, or something that is waited for like one."""

    def fileno(self) -> int: ...


class Receiver:
    """Reads from a blocking socket, with time-outs; one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._limit: float | None = -1.0

    def ready(self, timeout: float | None) -> bool:
        """Have the next read of `sock` wait for at most `timeout` seconds; False if nothing came meanwhile.

        A read may then raise BlockingIOError or TimeoutError, up to 20 ms before the time is over.
        """
        if timeout is not None and timeout <= 2 * _KERNEL_LATE and _KERNEL_TIMEOUTS:
            poller = select.poll()
            poller.register(self.sock, select.POLLIN)
            return bool(poller.poll(max(timeout, 0.0) * 1000))
        if timeout != self._limit:
            self._limit = timeout
            if _KERNEL_TIMEOUTS:
                value = _timeval(timeout - _KERNEL_LATE) if timeout is not None else _timeval(0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            else:
                # Both ends of a duplicated socket are non-blocking by now, so that "for ever" needs a number as well.
                self.sock.settimeout(3600.0 if timeout is None else timeout)
        return True


def _timeval(seconds: float) -> bytes:
    return struct.pack(_TIMEVAL, int(seconds), int(seconds % 1 * 1e6))


def _send_rest(sock: socket.socket, parts: Iterable[Buffer], sent: int) -> None:
    for part in parts:
        if sent < len(part):
            sock.sendall(memoryview(part)[sent:])
            sent = 0
        else:
            sent -= len(part)
