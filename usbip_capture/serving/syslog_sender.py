"""Events to a syslog: by UDP, by TCP, or to a socket of this machine such as `/dev/log`.

Ref: RFC 5424; RFC 5426 (UDP); RFC 6587, 3.4.1 (octet counting, by TCP); POSIX syslog() for `/dev/log`
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from usbip_capture.net.connecting import set_options
from usbip_capture.server.described import as_data, sentence
from usbip_capture.server.events import Event
from usbip_capture.servers.syslog_target import LOCAL, TCP, UNIX, SyslogTarget
from usbip_capture.syslog.formatting import octet_counted, of_syslog_3, rfc5424

APP_NAME = "usbip-capture"
#: The structured data's name; the number is the one for examples, as there is none of ours. Ref: RFC 5424, 7; RFC 5612
ELEMENT = "usbip-capture@32473"
#: Seconds to connect, and for each message to be taken.
_TIMEOUT = 5.0
#: In the header already.
_OF_HEADER = ("time", "kind", "severity")


class SyslogSender:
    """Sends each event as one message; connects when there is one, and again when the connection was lost.

    What a network loses on its way, or a receiver that ends before it has read it, is not noticed.
    """

    def __init__(self, target: SyslogTarget) -> None:
        self._target = target
        self._sock: socket.socket | None = None
        self._is_stream = False

    def __str__(self) -> str:
        return f"syslog at {self._target}"

    def write(self, events: Sequence[Event]) -> int:
        """How many of the first were sent. Raises OSError if not even one."""
        for sent, event in enumerate(events):
            try:
                self._send(message_of(event, is_local=self._target.transport == LOCAL))
            except OSError:
                self.close()  # a stream may have part of the message
                if not sent:
                    raise
                return sent
        return len(events)

    def close(self) -> None:
        """Send no more. May be called again."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _send(self, message: bytes) -> None:
        if self._sock is not None and self._is_stream and _has_ended(self._sock):
            self.close()
        if self._sock is None:
            self._connect()
        assert self._sock is not None
        if not self._is_stream:
            self._sock.send(message)
        elif self._target.transport == LOCAL:
            self._sock.sendall(message + b"\0")  # as syslog(3) ends it
        else:
            self._sock.sendall(octet_counted(message))

    def _connect(self) -> None:
        target = self._target
        if target.transport in (UNIX, LOCAL):
            self._connect_unix(target.host)
        elif target.transport == TCP:
            self._sock, self._is_stream = socket.create_connection((target.host, target.port), _TIMEOUT), True
            set_options(self._sock)
        else:
            family, kind, protocol, _, address = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
            self._open(family, kind, address, protocol)

    def _connect_unix(self, path: str) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("Python has no Unix sockets on this system")
        try:
            self._open(socket.AF_UNIX, socket.SOCK_DGRAM, path)
        except OSError:  # EPROTOTYPE where it is a stream; else this one's error is the same
            self._open(socket.AF_UNIX, socket.SOCK_STREAM, path)

    def _open(self, family: int, kind: int, address: object, protocol: int = 0) -> None:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_TIMEOUT)
            sock.connect(address)  # type: ignore[arg-type]  # of this family, a path or what getaddrinfo found
        except BaseException:
            sock.close()
            raise
        self._sock, self._is_stream = sock, kind == socket.SOCK_STREAM


def message_of(event: Event, *, is_local: bool = False) -> bytes:
    """The message of an event: its sentence, and its data as structured data. is_local: as syslog(3) makes it."""
    data = {name: str(value) for name, value in as_data(event).items() if name not in _OF_HEADER}
    procid, text = str(os.getpid()), sentence(event)
    if is_local:
        stamp = datetime.fromtimestamp(event.time)  # in local time, as syslog(3) has it
        return of_syslog_3(event.severity, stamp, APP_NAME, procid, ELEMENT, {"kind": event.kind, **data}, text)
    hostname = socket.gethostname()
    return rfc5424(event.severity, event.time, hostname, APP_NAME, procid, event.kind, ELEMENT, data, text)


def _has_ended(sock: socket.socket) -> bool:
    """Whether the receiver has closed the connection: what is sent then is lost. What it sends is left out."""
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            sock.settimeout(_TIMEOUT)
