"""A port on a TCP port, for one client at a time: bytes as they are, or RFC 2217 with settings and modem lines."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from serial import Serial
from serial.rfc2217 import PortManager

from usbip_capture.net import listening
from usbip_capture.net.address import format_address
from usbip_capture.net.connecting import readable, set_options
from usbip_capture.serial_port.bridge.copying import FarEnd, FarEndFault, copy

log = logging.getLogger(__name__)

_CHUNK = 4096
#: Bytes: the longest option of Telnet that is kept until its end; answers that wait for a client to read them.
_MAX_SUBOPTION, _MAX_UNREAD = 1 << 10, 256 << 10
_IN_USE = "the serial port is in use by another client"
#: Seconds: between two looks for Ctrl-C; of silence that shows that nothing more of the last client's comes; at most.
_LOOK, _SILENCE, _FORGET_AT_MOST = 0.5, 0.05, 1.0
_MODEM_INTERVAL = 0.25


class Connect(Protocol):
    """Makes the far end of a connection."""

    def __call__(self, port: Serial, sock: socket.socket) -> FarEnd: ...


def serve(port: Serial, address: str, tcp_port: int, connect: Connect, announce: Callable[[str], None]) -> None:
    """Serve `port` until it fails. announce: called with where it is served. Raises CannotListen, SerialException.

    Each client finds the port with the settings that it had at first, and nothing of what the one before has left.
    While there is one, others are refused.
    """
    settings = port.get_settings()
    listener = listening.listen(address, tcp_port, "the serial port")
    where = format_address(*listener.getsockname()[:2])
    entrance = _Entrance()
    acceptor = listening.Acceptor(listener, entrance.arrived, "usbip-serial-tcp", entrance.admission)
    try:
        announce(where)
        while True:
            sock = entrance.next_client()
            try:
                copy(port, connect(port, sock))
            except FarEndFault as error:
                log.warning("a client was disconnected: %s", error)
            finally:
                entrance.leave(sock)
            _forget(port)
            port.apply_settings(settings)
    finally:
        acceptor.close()
        entrance.close()


class _Entrance:
    """Lets one client in at a time. The next one waits while the last one leaves; others are refused."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: socket.socket | None = None
        self._next: socket.socket | None = None
        self.admission = listening.Admission()

    def arrived(self, sock: socket.socket, peer: listening.Peer) -> None:
        """A client has connected; on the acceptor's thread."""
        set_options(sock)
        sock.setblocking(False)
        with self._changed:
            if self._next is None and (self._inside is None or _has_left(self._inside)):
                self._next = sock
                self._changed.notify()
                return
        self.admission.refuse(peer, _IN_USE)
        with sock:
            sock.send(f"usbip-capture: {_IN_USE}\r\n".encode())

    def next_client(self) -> socket.socket:
        """Wait for one."""
        with self._changed:
            while self._next is None:
                self._changed.wait(_LOOK)  # with a limit, or Ctrl-C has no effect on Windows
            self._inside, self._next = self._next, None
            return self._inside

    def leave(self, sock: socket.socket) -> None:
        """The connection of the one inside ends."""
        with self._changed:
            self._inside = None
            sock.close()

    def close(self) -> None:
        """Nobody may come in any more."""
        with self._changed:
            if self._next is not None:
                self._next.close()


def _has_left(sock: socket.socket) -> bool:
    """Whether its peer has closed the connection, or its half of it."""
    if hasattr(select, "POLLRDHUP"):  # Linux: whatever came before is still to be read
        poller = select.poll()
        poller.register(sock, select.POLLRDHUP)
        return bool(poller.poll(0))
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _forget(port: Serial) -> None:
    """Drop what a client has left in the port and in the device: the next one must not get it. Bounded in time."""
    port.reset_output_buffer()
    deadline = time.monotonic() + _FORGET_AT_MOST
    while time.monotonic() < deadline:
        port.reset_input_buffer()
        if not readable(port, _SILENCE):
            return


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
        """For pyserial: what it answers to the client."""
        self._out += data
        self._flush()

    def receive(self) -> bytes | None:
        data = super().receive()
        if data is None:
            return None
        # pyserial trusts its peer: struct.error, KeyError, TypeError for what is not RFC 2217. A SerialException may be
        # a setting that the device refuses; if the device is gone, whoever uses the port next finds that too.
        try:
            passed = b"".join(self._manager.filter(data))
        except Exception as error:
            raise FarEndFault(f"what it sent is not RFC 2217 ({type(error).__name__}: {error})") from error
        if len(self._manager.suboption or b"") > _MAX_SUBOPTION:
            raise FarEndFault(f"it sent an option of more than {_MAX_SUBOPTION} bytes")
        if len(self._out) > _MAX_UNREAD:
            raise FarEndFault("it reads no answers")
        return passed

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
            self._gone = True  # pyserial calls this too: the next `send` raises it
            self._out.clear()
