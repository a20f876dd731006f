"""Addresses of servers as people write them."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, and the errors where they are raised: Wireshark waits for this import
if TYPE_CHECKING:
    from usbip_capture.errors import LocalProtocolError

DEFAULT_PORT = 3240


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """`HOST`, `HOST:PORT`, `[IPv6]:PORT` or a bare IPv6 literal. Raises LocalProtocolError."""
    host, port = text.strip(), ""
    if host.startswith("["):
        host, closed, port = host[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise _error(f"{text!r} is not an address: write [IPv6]:PORT")
        port = port[1:]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    number = port.isascii() and port.isdigit()
    if not host or (port and not number) or (":" in host and not _is_ipv6(host)):
        raise _error(f"{text!r} is not an address: write HOST, HOST:PORT or [IPv6]:PORT")
    if number and (len(port) > 5 or int(port) > 65535):
        raise _error(f"{text!r}: {port} is not a TCP port (1 to 65535)")
    return host, int(port) if port else default_port


def _error(sentence: str) -> LocalProtocolError:
    from usbip_capture.errors import LocalProtocolError

    return LocalProtocolError(sentence)


def _is_ipv6(host: str) -> bool:
    import socket  # here, for it takes longer to import than what Wireshark's start needs of this module

    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def format_address(host: str, port: int) -> str:
    """Inverse of `parse_address`; the default port is left out."""
    if port == DEFAULT_PORT:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
