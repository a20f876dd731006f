"""A server of the demo device, within TLS and without, and certificates of all kinds."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from usbip_capture.demo.device import DemoDevice
from usbip_capture.net.listening import Peer
from usbip_capture.server import Server
from usbip_capture.server.events import Event
from usbip_capture.tls.certificates import SERVER, own_identity
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.tls.server import ServerContext
from usbip_capture.tls.transport import TlsTransport
from usbip_capture.usb.info import DeviceInfo

HOST = "127.0.0.1"
_DAY = datetime.timedelta(days=1)


class Certified(NamedTuple):
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def write(self, path: Path) -> str:
        """A file in PEM with both, for its owner only; its name."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + self.certificate.public_bytes(serialization.Encoding.PEM))
        path.chmod(0o600)
        return str(path)


def certified(
    name: str,
    issuer: Certified | None = None,
    *,
    names: tuple[x509.GeneralName, ...] = (),
    authority: bool = False,
    days: tuple[int, int] = (-1, 1),
) -> Certified:
    """A certificate, by itself or by `issuer`. days: from when to when it is valid, from today."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Certified(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


class TlsServed:
    """port: of TLS. plain: without. client_ca: see `ServerContext`."""

    def __init__(self, client_ca: str = "") -> None:
        self.server = Server()
        self.info: DeviceInfo = DemoDevice().info
        self.server.add(self.info, DemoDevice)
        self.context = ServerContext(own_identity(SERVER), client_ca)
        self.port = self.server.listen_tls(HOST, 0, self.context, self._pair)[1]
        self.plain = self.server.listen(HOST, 0)[1]

    def trust(self, port: int = 0, fingerprint: str = "", *, paired: bool = False) -> None:
        """Have the server at `port` be known by this fingerprint; its own, where none is given."""
        remember(HOST, port or self.port, KnownServer(fingerprint or self.context.fingerprint, paired))

    def await_event(self, matches: Callable[[Event], bool]) -> Event:
        """The first that matches, of all that there were and will be."""
        number = 0
        while events := self.server.events.after(number, 100, 20.0):
            for event in events:
                if matches(event):
                    return event
            number = events[-1].number
        raise AssertionError(self.server.events.after(0, 100))

    def identities(self) -> list[str]:
        """Of those who are connected."""
        return [client.peer.identity for client in self.server.clients]

    def close(self) -> None:
        self.server.close()

    def _pair(self, transport: TlsTransport, peer: Peer) -> None:
        raise AssertionError("nobody pairs here")
