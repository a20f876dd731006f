"""Connections to servers that TLS or ssh carries."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from usbip_capture.net.address import TLS
from usbip_capture.net.transport import SocketTransport, Transport

if TYPE_CHECKING:
    from usbip_capture.servers.address import ServerAddress

#: Seconds, beside the server's, for a program of ours to start and to connect.
_STARTING = 10.0


def open_transport(server: ServerAddress) -> Transport:
    """A new connection. Raises UsbipError."""
    if server.scheme == TLS:
        from usbip_capture.tls.client import connect_tls

        return connect_tls(server.host, server.port, server.timeout)
    from usbip_capture.net.ssh import open_ssh

    return open_ssh(server.host, server.port, server.timeout, user=server.user, ssh_port=server.ssh_port)


def open_socket(server: ServerAddress) -> SocketTransport:
    """One whose socket a kernel can have: a program carries its bytes, for as long as it is open. Raises UsbipError.

    Nobody is asked anything on its behalf.
    """
    if server.scheme != TLS:
        from usbip_capture.net.ssh import open_ssh

        return open_ssh(
            server.host, server.port, server.timeout, user=server.user, ssh_port=server.ssh_port, asks=False
        )
    from usbip_capture.net.child import ChildTransport

    open_transport(server).close()  # what is wrong is better known here: whether it is trusted, mostly
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    arguments = ["tunnel", str(server), "--stdio", f"--connect-timeout={server.timeout:g}"]
    code = f"import sys; sys.path.insert(0, {library!r}); from usbip_capture.cli.main import main; sys.exit(main())"
    return ChildTransport([sys.executable, "-I", "-c", code, *arguments], str(server), _STARTING, _tunnel_failure)


def _tunnel_failure(lines: list[str], status: int | None) -> str:
    """The sentence of `usbip-capture tunnel`, which is the last that it printed."""
    if lines:
        return lines[-1].removeprefix("usbip-capture: ")
    return "no answer came through TLS yet" if status is None else f"the tunnel to it ended with status {status}"
