"""Where the relay listens, and who may come."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import TypeAlias

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net import listening
from usbip_capture.net.address import DEFAULT_PORT, format_address, parse_address
from usbip_capture.system.shown import shell_word

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

WARNING = "USB/IP has no authentication: whoever may connect can use the devices"
_BACKLOG = 1024
#: Busids that a hint names beside the first.
_MAX_OTHERS = 8
_LOOPBACK_NAMES = ("localhost", "")
_ANY = {"*": "0.0.0.0"}


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


def listen_address(text: str) -> tuple[str, int]:
    """ADDR:PORT, ADDR, :PORT or PORT; nothing is the usual port on loopback. Raises LocalProtocolError."""
    text = text.strip()
    if text.isdigit():
        text = f":{text}"
    if text.startswith(":") and text.count(":") == 1:
        text = f"127.0.0.1{text}"
    if not text:
        return "127.0.0.1", DEFAULT_PORT
    return parse_address(text)


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect there."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.lower() in _LOOPBACK_NAMES


def check_allowed(address: str, port: int, allow: Sequence[Network]) -> None:
    """Raises LocalProtocolError where others could connect and nobody is named as allowed."""
    if not is_loopback(address) and not allow:
        raise LocalProtocolError(
            f"other machines can connect to {format_address(address, port)}, and {WARNING}: "
            "name who may with --allow, such as 192.0.2.0/24"
        )


def open_listener(address: str, port: int, allow: Sequence[Network]) -> socket.socket:
    """A listening socket, not blocking; port 0 chooses one.

    Raises LocalProtocolError where others could connect and nobody is named as allowed, CannotListen.
    """
    check_allowed(address, port, allow)
    listener = listening.listen(_ANY.get(address, address) or "127.0.0.1", port, "the relay", _BACKLOG)
    listener.setblocking(False)
    return listener


def policy(allow: Sequence[Network]) -> listening.Policy:
    """Lets in this machine, by whichever of its addresses, and the networks that are allowed."""
    networks = list(allow)

    def refusal(peer: listening.Peer) -> str:
        known = may_connect(peer.host, networks) or peer.host == peer.local_host != ""
        return "" if known else listening.NOT_ALLOWED

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


def attach_hint(address: str, port: int, busids: Sequence[str]) -> str:
    """How to attach one of these devices at this address.

    A person types it, and the server chose the busids: those that a shell would not take as they are, are left out.
    """
    address = {"0.0.0.0": "ADDRESS", "::": "ADDRESS"}.get(address, address)
    option = "" if port == DEFAULT_PORT else f"--tcp-port {port} "
    busid, *others = [busid for busid in busids if shell_word(busid) == busid] or ["BUSID"]
    also = ", ".join(others[:_MAX_OTHERS]) + (", ..." if len(others) > _MAX_OTHERS else "")
    return f"attach with: usbip {option}attach -r {address} -b {busid}{f' (or {also})' if also else ''}"
