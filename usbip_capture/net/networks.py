"""Networks, and addresses to listen on: for whatever listens for USB/IP clients. Who may connect: `ruling`."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import DEFAULT_PORT, parse_address

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

WARNING = "USB/IP has no authentication: whoever may connect can use the devices"
_LOOPBACK_NAMES = ("localhost", "")


def parse_networks(text: str) -> list[Network]:
    """`192.0.2.0/24`, or several of these, separated by commas or blanks. Raises LocalProtocolError."""
    found: list[Network] = []
    for part in text.replace(",", " ").split():
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise LocalProtocolError(
                f"{part!r} is not a network: write an address such as 192.0.2.7, or a network such as 192.0.2.0/24"
            ) from None
    return found


def listen_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """ADDR:PORT, ADDR, :PORT or PORT; nothing is the usual port on loopback. Raises LocalProtocolError."""
    text = text.strip()
    if text.isdigit():
        text = f":{text}"
    if text.startswith(":") and text.count(":") == 1:
        text = f"127.0.0.1{text}"
    if not text:
        return "127.0.0.1", default_port
    return parse_address(text, default_port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect there."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.lower() in _LOOPBACK_NAMES
