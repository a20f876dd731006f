"""A server's listeners for TLS: its certificate, who is known by theirs, and pairing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from usbip_capture.net.address import TLS_PORT
from usbip_capture.net.networks import listen_address
from usbip_capture.server.exporter import Server
from usbip_capture.serving.pairing import Pairing
from usbip_capture.tls.certificates import SERVER, own_identity
from usbip_capture.tls.server import ServerContext


class TlsSide:
    """client_ca: see `ServerContext`. on_paired: called with the names of all who are paired, whenever they change.

    addresses: where it listens. Raises CannotListen, FileFormatError, UsbipError.
    """

    def __init__(
        self,
        server: Server,
        places: Iterable[tuple[str, int]],
        client_ca: str,
        on_paired: Callable[[Sequence[str]], None],
    ) -> None:
        self.context = ServerContext(own_identity(SERVER), client_ca)
        self.pairing = Pairing(self.context, on_paired)
        self.addresses = [server.listen_tls(*place, self.context, self.pairing.converse) for place in places]

    @property
    def fingerprint(self) -> str:
        """Of the server's certificate."""
        return self.context.fingerprint


def tls_place(text: str) -> tuple[str, int]:
    """Where to listen for TLS: ADDR:PORT, ADDR, `*`, :PORT or PORT. Raises LocalProtocolError."""
    address, port = listen_address(text, TLS_PORT)
    return "0.0.0.0" if address == "*" else address, port
