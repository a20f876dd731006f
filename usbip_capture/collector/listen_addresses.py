"""Where a collector listens, as people write it.

Ref: RFC 5426 (UDP), RFC 6587 (TCP), RFC 5425 (TLS)
"""

from __future__ import annotations

from dataclasses import dataclass

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import parse_address
from usbip_capture.syslog import LOG_PORT

DEFAULT_TLS_PORT = 6514
TCP, UDP, TLS = "tcp", "udp", "tls"
_EVERYWHERE = ("", "*")


@dataclass(slots=True, frozen=True)
class ListenAddress:
    """transport: `tcp`, `udp` or `tls`. address: empty for all of this machine. port: 0 lets the system choose."""

    transport: str
    address: str
    port: int

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address or "*"
        return f"{self.transport}:{address}:{self.port}"


def parse_listen_addresses(text: str, port: int = LOG_PORT) -> list[ListenAddress]:
    """`[tcp:|udp:|tls:]ADDRESS[:PORT]`, or a comma-separated list; TCP and UDP where neither is named.

    ADDRESS may be `*`, and nothing at all is `*`: every address of this machine. Raises LocalProtocolError.
    """
    return [address for part in text.split(",") for address in _parse(part.strip(), port)]


def _parse(text: str, port: int) -> list[ListenAddress]:
    transport, colon, rest = text.partition(":")
    transport = transport.lower()
    named = bool(colon) and transport in (TCP, UDP, TLS)
    where = rest if named else text
    default = DEFAULT_TLS_PORT if transport == TLS and named else port
    if where in _EVERYWHERE:
        address = ""
    else:
        try:
            address, default = parse_address(where, default)
        except LocalProtocolError:
            raise LocalProtocolError(
                f"{text!r} is not a place to listen: write ADDRESS, ADDRESS:PORT, *:PORT, or one with tcp:, udp: or "
                "tls: before it"
            ) from None
    address = "" if address in _EVERYWHERE else address
    return [ListenAddress(kind, address, default) for kind in ([transport] if named else [TCP, UDP])]
