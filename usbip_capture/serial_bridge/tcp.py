"""A port on a TCP port, for one client at a time: bytes as they are, or RFC 2217 with settings and modem lines."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Protocol

from serial import Serial
from serial.rfc2217 import PortManager

from usbip_capture.address import format_address
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net import set_options
from usbip_capture.serial_bridge.copying import FarEnd, copy

_CHUNK = 4096
_MODEM_INTERVAL = 0.25


class Connect(Protocol):
    """Makes the far end of a connection."""

    def __call__(self, port: Serial, sock: socket.socket) -> FarEnd: ...


def serve(port: Serial, address: str, tcp_port: int, connect: Connect, announce: Callable[[str], None]) -> None:
    """Serve `port` until it fails. announce: told where it is served. Raises LocalProtocolError, SerialException.

    Each client finds the port with the settings that it had at first.
    """
    settings = port.get_settings()
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, tcp_port), family=family, backlog=1)
    except OSError as error:
        where = format_address(address, tcp_port)
        raise LocalProtocolError(f"the serial port cannot be served at {where}: {error.strerror or error}") from error
    with listener:
        announce("{}:{}".format(*listener.getsockname()[:2]))
        while True:
            sock, _ = listener.accept()
            with sock:
                set_options(sock)
                copy(port, connect(port, sock))
            port.apply_settings(settings)


class RawConnection(FarEnd):
    """Bytes as they are."""

    def __init__(self, port: Serial, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        try:
            return self._sock.recv(_CHUNK) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def send(self, data: bytes) -> int:
        return self._sock.send(data)


class Rfc2217Connection(RawConnection):
    """Telnet with the COM port control option, by pyserial's own implementation. Ref: RFC 2217"""

    def __init__(self, port: Serial, sock: socket.socket) -> None:
        super().__init__(port, sock)
        self._out = bytearray()
        self._gone = False
        self._next_look = time.monotonic() + _MODEM_INTERVAL
        self._manager = PortManager(port, self)  # type: ignore[arg-type]  # it needs `write` only

    def write(self, data: bytes) -> None:
        """For pyserial: what it says to the client."""
        self._out += data
        self._flush()

    def receive(self) -> bytes | None:
        data = super().receive()
        return None if data is None else b"".join(self._manager.filter(data))

    def send(self, data: bytes) -> int:
        # An answer of the protocol that waits goes first, and whole.
        self._flush()
        if self._gone:
            raise BrokenPipeError
        if self._out:
            return 0
        self._out += b"".join(self._manager.escape(data))
        self._flush()
        return len(data)

    def idle(self) -> None:
        self._flush()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _MODEM_INTERVAL
            self._manager.check_modem_lines()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._gone = True  # pyserial calls this too: the next `send` says it
            self._out.clear()
