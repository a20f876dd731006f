"""Networks whose machines may connect, and where listening needs them: for whatever listens for USB/IP clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import DEFAULT_PORT, format_address, parse_address
from usbip_capture.net.listening import NOT_ALLOWED, Peer, Policy

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


def check_allowed(address: str, port: int, allow: Sequence[Network], otherwise: str = "") -> None:
    """Raises LocalProtocolError where others could connect and nobody is named as allowed.

    otherwise: what else its sentence advises.
    """
    if not is_loopback(address) and not allow:
        raise LocalProtocolError(
            f"other machines can connect to {format_address(address, port)}, and {WARNING}: "
            f"name who may with --allow, such as 192.0.2.0/24{otherwise}"
        )


def policy(allow: Sequence[Network]) -> Policy:
    """Lets in this machine, by whichever of its addresses, and the networks that are allowed."""
    networks = list(allow)

    def refusal(peer: Peer) -> str:
        known = may_connect(peer.host, networks) or peer.host == peer.local_host != ""
        return "" if known else NOT_ALLOWED

    return refusal


def may_connect(peer: str, allow: Sequence[Network]) -> bool:
    """Whether a client of this address is let in: this machine, and the networks that are allowed."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:  # it has none: nobody here listens for such
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or any(address.version == net.version and address in net for net in allow)
