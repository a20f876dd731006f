"""Where the relay listens, and how clients attach there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

from usbip_capture.access.rules import AccessRules
from usbip_capture.errors import UsbipError
from usbip_capture.net import listening
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.net.connecting import set_options
from usbip_capture.net.listening import Peer
from usbip_capture.net.ruling import check_lets_in
from usbip_capture.net.transport import SocketTransport, Transport, reset_on_close
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system.shown import one_line, shell_word

log = logging.getLogger(__name__)

_BACKLOG = 1024
#: Busids that a hint names beside the first.
_MAX_OTHERS = 8
_ANY = {"*": "0.0.0.0"}


def open_listener(address: str, port: int, rules: AccessRules) -> socket.socket:
    """A listening socket, not blocking; port 0 chooses one.

    Raises LocalProtocolError where others could connect and nobody is named as allowed, CannotListen.
    """
    check_lets_in(address, port, rules)
    listener = listening.listen(_ANY.get(address, address) or "127.0.0.1", port, "the relay", _BACKLOG)
    listener.setblocking(False)
    return listener


def attach_hint(address: str, port: int, busids: Sequence[str]) -> str:
    """How to attach one of these devices at this address.

    A person types it, and the server chose the busids: those that a shell would not take as they are, are left out.
    """
    address = {"0.0.0.0": "ADDRESS", "::": "ADDRESS"}.get(address, address)
    option = "" if port == DEFAULT_PORT else f"--tcp-port {port} "
    busid, *others = [busid for busid in busids if shell_word(busid) == busid] or ["BUSID"]
    also = ", ".join(others[:_MAX_OTHERS]) + (", ..." if len(others) > _MAX_OTHERS else "")
    return f"attach with: usbip {option}attach -r {address} -b {busid}{f' (or {also})' if also else ''}"


def break_off(sock: socket.socket) -> None:
    """Reset a client that is not served."""
    reset_on_close(sock)
    sock.close()


def both_ends(sock: socket.socket, peer: Peer, server: ServerAddress) -> tuple[Transport, Transport] | None:
    """A client, and a connection to the server for it. None if there is none: then the client is broken off."""
    try:
        set_options(sock)
        return SocketTransport(sock, str(peer)), server.open_transport()
    except Exception as error:
        expected = isinstance(error, (UsbipError, OSError))
        log.warning("client %s: %s", peer, one_line(str(error)), exc_info=None if expected else error)
        break_off(sock)
        return None
