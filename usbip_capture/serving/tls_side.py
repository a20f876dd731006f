"""A server's listeners for TLS: its certificate, who is known by theirs, and pairing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from usbip_capture.net.address import TLS_PORT
from usbip_capture.net.networks import listen_address
from usbip_capture.server.exporter import Server
from usbip_capture.serving.following import FollowedFile
from usbip_capture.serving.pairing import Pairing
from usbip_capture.tls.certificates import SERVER, own_identity
from usbip_capture.tls.paired_clients import paired_clients_path
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
        self._followed: FollowedFile | None = None
        self._on_paired = on_paired
        self.pairing = Pairing(self.context, server.events, self._paired)
        self._followed = FollowedFile(paired_clients_path(), self.pairing.follow)
        self.pairing.follow()  # it may have changed since it was read
        try:
            self.addresses = self._listening(server, places)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Follow no more who is paired; the listeners are the server's."""
        if self._followed is not None:
            self._followed.close()

    def _paired(self, names: Sequence[str]) -> None:
        if self._followed is not None:
            self._followed.recheck()
        self._on_paired(names)

    def _listening(self, server: Server, places: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        return [server.listen_tls(*place, self.context, self.pairing.converse) for place in places]

    @property
    def fingerprint(self) -> str:
        """Of the server's certificate."""
        return self.context.fingerprint


def tls_place(text: str) -> tuple[str, int]:
    """Where to listen for TLS: ADDR:PORT, ADDR, `*`, :PORT or PORT. Raises LocalProtocolError."""
    address, port = listen_address(text, TLS_PORT)
    return "" if address == "*" else address, port
