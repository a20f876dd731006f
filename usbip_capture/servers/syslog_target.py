"""Where messages of syslog are sent, as people write it.

Ref: RFC 5426 (UDP), RFC 6587 (TCP)
"""

from __future__ import annotations

from dataclasses import dataclass

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import parse_address

DEFAULT_PORT = 514
TCP, UDP, UNIX, LOCAL = "tcp", "udp", "unix", "local"


@dataclass(slots=True, frozen=True)
class SyslogTarget:
    """transport: `tcp`, `udp`, or `unix` and `local`, of which `host` is the path.

    `local`: what listens there reads messages as syslog(3) makes them, as is so at `/dev/log`.
    """

    transport: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> SyslogTarget:
        """`[udp:|tcp:]HOST[:PORT]`, `/dev/log` or another path, or `unix:PATH`. Raises LocalProtocolError."""
        transport, colon, rest = text.partition(":")
        if text.startswith("/") or transport.lower() == UNIX:
            path = text if text.startswith("/") else rest
            if "\0" in path or not path.startswith("/"):
                raise _wrong(text)
            return cls(LOCAL if path is text else UNIX, path)
        named = bool(colon) and transport.lower() in (TCP, UDP)
        try:
            host, port = parse_address(rest if named else text, DEFAULT_PORT)
        except LocalProtocolError:
            raise _wrong(text) from None
        if not port or not host.isprintable() or " " in host:
            raise _wrong(text)
        return cls(transport.lower() if named else UDP, host, port)

    def __str__(self) -> str:
        if self.transport in (UNIX, LOCAL):
            return self.host if self.transport == LOCAL else f"{UNIX}:{self.host}"
        return f"{self.transport}:{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def _wrong(text: str) -> LocalProtocolError:
    return LocalProtocolError(
        f"{text!r} is not where a syslog is: write HOST, HOST:PORT, one of these with tcp: before it, /dev/log, or "
        "unix:/PATH"
    )
