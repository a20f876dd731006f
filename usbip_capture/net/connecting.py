"""TCP to a USB/IP server: options that every connection needs, errors as sentences."""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Protocol

from usbip_capture.errors import RemoteProtocolError, ServerUnreachable
from usbip_capture.net.address import TLS, format_address
from usbip_capture.net.transport import CarrierFailed, Transport
from usbip_capture.system.durations import milliseconds
from usbip_capture.wire.operations import Exchange

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
#: Bytes of a reply that are received at once.
_PIECE = 16 << 10


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


class HasFileno(Protocol):
    """A socket, or something that is waited for like one."""

    def fileno(self) -> int: ...


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


def exchange(transport: Transport, request: Exchange, timeout: float) -> None:
    """Send an OP request and read its whole reply. Errors name the peer.

    timeout: seconds for all of it, not for each part; a long reply gets a second more for each KiB that has come, up
    to four times the time-out, and what the transport needs to open. Raises RemoteProtocolError, ImportRefused or
    ServerUnreachable.
    """
    wait = _Patience(transport, timeout)
    where = transport.peer
    try:
        transport.send([request.request])
        while request.wanted:
            data = wait.read(request.wanted)
            if not wait.received:
                raise ConnectionAbortedError(errno.ECONNABORTED, "closed without an answer")
            try:
                request.receive(data)
            except RemoteProtocolError as error:
                raise type(error)(f"{where}: {error}") from error
    except TimeoutError as error:
        did = "has not finished its answer" if wait.received else "does not answer"
        raise ServerUnreachable(
            f"{where} accepts connections but {did} within {wait.allowed:.3g} s: is that a USB/IP server?"
        ) from error
    except CarrierFailed as error:
        raise ServerUnreachable(str(error)) from error
    except OSError as error:
        advice = "is that a USB/IP server?" if wait.received else _advice(where)
        raise ServerUnreachable(f"{where} broke off the connection ({error.strerror or error}): {advice}") from error


def _advice(where: str) -> str:
    """For who got no answer: a server that lets him in would have given one."""
    if where.startswith(f"{TLS}://"):
        return "its rules may not let this client in: pair with it, or have it allowed there"
    return f"its rules may not let this machine in, it may want {TLS}://, or it is not a USB/IP server"


class _Patience:
    """How long the reply of one exchange is waited for. received: bytes of it so far."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        self.received = 0
        self._transport = transport
        self._timeout = timeout
        self._started = time.monotonic()

    @property
    def allowed(self) -> float:
        """Seconds for the exchange, as far as it has come."""
        patience = min(self._timeout + self.received / _SLOWEST, self._timeout * _LONGEST)
        return patience + self._transport.opening

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the end of the stream. Raises OSError."""
        data = b""
        buffer = memoryview(bytearray(min(size, _PIECE)))
        while len(data) < size:
            left = self._started + self.allowed - time.monotonic()
            if left <= 0:
                raise TimeoutError
            taken = self._transport.receive_into(buffer[: size - len(data)], left)
            if not taken:
                break
            data += buffer[:taken]
            self.received += taken
        return data
