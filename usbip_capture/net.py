"""TCP to a USB/IP server: options that every connection needs, errors as sentences."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterable
from typing import Protocol

from usbip_capture.address import format_address
from usbip_capture.durations import milliseconds
from usbip_capture.errors import RemoteProtocolError, ServerUnreachable
from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.operations import Exchange

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
#: Parts from this size on are sent as they are; below it joining them costs less than a longer system call.
_JOIN_BELOW = 16 << 10
#: A time-out that the kernel keeps costs no system call of its own, but may be so many seconds late.
_KERNEL_LATE = 0.02
_KERNEL_TIMEOUTS = os.name == "posix"


def connect(host: str, port: int, timeout: float, service: str = "a USB/IP server") -> socket.socket:
    """A connection to `service`. Raises ServerUnreachable with the reason and what to try.

    timeout: seconds for each address that the name has.
    """
    where = format_address(host, port)
    try:
        sock = socket.create_connection((host, port), timeout)
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
    set_options(sock)
    return sock


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

    Raises RemoteProtocolError, ImportRefused or ServerUnreachable; the socket has no timeout afterwards.
    """
    sock.settimeout(timeout)
    try:
        sock.sendall(request.request)
        while request.wanted:
            try:
                request.receive(_read(sock, request.wanted))
            except RemoteProtocolError as error:
                raise RemoteProtocolError(f"{where}: {error}") from error
    except TimeoutError as error:
        raise ServerUnreachable(
            f"{where} accepts connections but does not answer within {timeout:g} s: is that a USB/IP server?"
        ) from error
    except OSError as error:
        raise ServerUnreachable(
            f"{where} broke off the connection ({error.strerror or error}): is that a USB/IP server?"
        ) from error
    sock.settimeout(None)


def send(sock: socket.socket, parts: list[Buffer]) -> None:
    """Send one message, whole; its parts leave together. Raises OSError."""
    if len(parts) == 1:
        sock.sendall(parts[0])
    elif sum(map(len, parts)) < _JOIN_BELOW or not hasattr(sock, "sendmsg"):
        sock.sendall(b"".join(parts))
    else:
        _send_rest(sock, parts, sock.sendmsg(parts))


def limit_sending(sock: socket.socket) -> None:
    """Sending raises OSError when the peer takes nothing for SEND_TIMEOUT seconds."""
    if _KERNEL_TIMEOUTS:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT))
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
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def _send_rest(sock: socket.socket, parts: Iterable[Buffer], sent: int) -> None:
    for part in parts:
        if sent < len(part):
            sock.sendall(memoryview(part)[sent:])
            sent = 0
        else:
            sent -= len(part)


def _read(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, fewer at the end of the stream."""
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            break
        data += chunk
    return data
