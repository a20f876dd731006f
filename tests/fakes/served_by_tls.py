"""The demo device, served within TLS by a server that this user trusts."""

from __future__ import annotations

from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.net.listening import Peer
from usbip_capture.server import Server
from usbip_capture.tls import certificates
from usbip_capture.tls.certificates import own_identity
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.tls.server import ServerContext
from usbip_capture.tls.transport import TlsTransport


class ServedByTls:
    """On a port of loopback. where: its address."""

    def __init__(self) -> None:
        self.server = Server()
        self.server.add(INFO, DemoDevice)
        self.context = ServerContext(own_identity(certificates.SERVER))
        self.port = self.server.listen_tls("127.0.0.1", 0, self.context, self._pair)[1]
        self.where = f"tls://127.0.0.1:{self.port}"
        self.trust(self.context.fingerprint)

    def trust(self, fingerprint: str) -> None:
        """Have this user remember it by that; by nothing if that is empty."""
        remember("127.0.0.1", self.port, KnownServer(fingerprint) if fingerprint else None)

    def _pair(self, transport: TlsTransport, peer: Peer) -> None:
        raise AssertionError("nobody pairs here")

    @property
    def users(self) -> list[str]:
        """The busids of devices that clients have."""
        return [client.busid for client in self.server.clients if client.busid]
