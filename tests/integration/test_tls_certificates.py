"""Which certificates of clients are an identity, and which connections are refused for theirs."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from tests.fakes.tls_served import HOST, Certified, TlsServed, certified
from usbip_capture.demo.device import BUSID
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import import_device
from usbip_capture.errors import UntrustedServer, UsbipError
from usbip_capture.net.connecting import connect
from usbip_capture.net.listening import listen
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server import events
from usbip_capture.tls import client
from usbip_capture.tls.certificates import own_identity
from usbip_capture.tls.client import connect_tls
from usbip_capture.tls.server import ServerContext
from usbip_capture.tls.transport import TlsTransport

TIMEOUT = 20.0
CA = certified("the lab", authority=True)
UNKNOWN = "its certificate is not accepted (unable to get local issuer certificate)"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TlsServed]:
    with closing(TlsServed(CA.write(tmp_path / "ca.pem"))) as made:
        yield made


def opened(served: TlsServed, file: str) -> TlsTransport:
    """A connection of a client with this key and certificate."""
    context = client.client_context()
    context.load_cert_chain(file)
    transport = TlsTransport(SocketTransport(connect(HOST, served.port, TIMEOUT), "the server"), context)
    transport.handshake(TIMEOUT)
    return transport


def identity(served: TlsServed, file: str) -> str:
    """Of a client with this certificate, which uses the device. Raises UsbipError if it is refused."""
    with closing(import_device(opened(served, file), BUSID, TIMEOUT)):
        return served.identities()[0]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), "ann"),
        ((x509.DNSName("ann.example"), x509.UniformResourceIdentifier("urn:ann")), "ann.example"),
        ((x509.UniformResourceIdentifier("urn:ann"), x509.RFC822Name("ann@example.com")), "urn:ann"),
        ((x509.RFC822Name("ann@example.com"),), "ann@example.com"),
    ],
    ids=["common name", "DNS", "URI", "e-mail"],
)
def test_a_certificate_of_the_authority_is_an_identity(
    served: TlsServed, tmp_path: Path, names: tuple[x509.GeneralName, ...], found: str
) -> None:
    assert identity(served, certified("ann", CA, names=names).write(tmp_path / "ann.pem")) == f"cert:{found}"


def refused_certificates() -> dict[str, tuple[Certified, str]]:
    """What a client shows, and why it is refused."""
    other, ann = certified("another lab", authority=True), certified("ann")
    return {
        "by itself": (certified("ann"), "its certificate is not accepted (self-signed certificate)"),
        "of another authority": (certified("ann", other), UNKNOWN),
        "of one with the authority's name": (
            certified("ann", certified("the lab", authority=True)),
            "its certificate is not accepted (certificate signature failure)",
        ),
        "expired": (
            certified("ann", CA, days=(-20, -10)),
            "its certificate is not accepted (certificate has expired)",
        ),
        "not valid yet": (
            certified("ann", CA, days=(10, 20)),
            "its certificate is not accepted (certificate is not yet valid)",
        ),
        "of a client": (certified("bob", ann), UNKNOWN),
    }


@pytest.mark.parametrize("kind", list(refused_certificates()))
def test_other_certificates_are_refused(served: TlsServed, tmp_path: Path, kind: str) -> None:
    shown, reason = refused_certificates()[kind]
    with pytest.raises((UsbipError, OSError)):
        list_devices(opened(served, shown.write(tmp_path / "shown.pem")), TIMEOUT)
    refused = served.await_event(lambda event: event.kind == events.REFUSED)
    assert refused.text == reason
    assert not any(event.kind == events.LISTED for event in served.server.events.after(0, 100))
    assert identity(served, certified("ann", CA).write(tmp_path / "ann.pem")) == "cert:ann"


def test_a_paired_client_makes_no_certificates_for_others(served: TlsServed, tmp_path: Path) -> None:
    ann = certified("ann")
    served.context.set_paired({"ann": ann.der})
    assert identity(served, ann.write(tmp_path / "ann.pem")) == "paired:ann"
    file = tmp_path / "bob.pem"
    certified("bob", ann).write(file)
    for with_issuer in (False, True):
        if with_issuer:
            file.write_text(file.read_text() + ssl.DER_cert_to_PEM_cert(ann.der))
        with pytest.raises((UsbipError, OSError)):
            list_devices(opened(served, str(file)), TIMEOUT)


def test_a_paired_client_whose_certificate_has_expired_is_refused(served: TlsServed, tmp_path: Path) -> None:
    ann = certified("ann", days=(-20, -10))
    served.context.set_paired({"ann": ann.der})
    with pytest.raises((UsbipError, OSError), match="out of date for it: compare both clocks"):
        list_devices(opened(served, ann.write(tmp_path / "ann.pem")), TIMEOUT)


def test_who_shows_no_certificate_has_no_identity(served: TlsServed) -> None:
    served.trust()
    with closing(import_device(connect_tls(HOST, served.port, TIMEOUT), BUSID, TIMEOUT)):
        assert served.identities() == [""]


@pytest.mark.parametrize("text", ["", "nothing in PEM", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"])
def test_a_file_of_authorities_that_has_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(text)
    with pytest.raises(UsbipError, match=r"ca\.pem cannot be used: "):
        ServerContext(own_identity("server"), str(path))
    with pytest.raises(UsbipError, match=r"none\.pem cannot be used: No such file"):
        ServerContext(own_identity("server"), str(tmp_path / "none.pem"))


def test_what_is_missing_to_make_a_certificate_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "cryptography", None)
        with pytest.raises(UsbipError, match="TLS needs the package cryptography to make a certificate: pip install"):
            own_identity("server")
    made = own_identity("server")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert own_identity("server") == made  # what is made is used without it


# -- the server's


def test_who_is_in_between_gets_nothing(served: TlsServed, tmp_path: Path) -> None:
    """Another machine at the server's address, or one on the way, with a certificate of its own."""
    served.trust()
    other = certified("pi")
    impostor = ServerContext(own_identity("server")._replace(path=other.write(tmp_path / "other.pem")))
    received: list[bytes] = []
    there = Listening(impostor, received)
    served.trust(there.port)
    with closing(there), pytest.raises(UntrustedServer):
        connect_tls(HOST, there.port, TIMEOUT)
    assert received == [b""]


def test_a_server_is_known_at_its_own_host_only(served: TlsServed) -> None:
    """The certificate of one host does for its other ports, where the same user has servers; not for another host."""
    served.trust()
    with closing(TlsServed()) as other:
        assert other.context.fingerprint == served.context.fingerprint
        connect_tls(HOST, other.port, TIMEOUT).close()
        with pytest.raises(UntrustedServer, match="is not known yet"):
            connect_tls("localhost", served.port, TIMEOUT)


class Listening:
    """Takes one client, and what it sends after the handshake."""

    def __init__(self, context: ServerContext, received: list[bytes]) -> None:
        self._context = context
        self._received = received
        self._listener = listen(HOST, 0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with closing(SocketTransport(sock, "the client")) as transport:
            try:
                accepted = self._context.accept(transport, TIMEOUT)
                self._received.append(accepted.transport.receive(100, TIMEOUT))
            except OSError:
                self._received.append(b"")

    def close(self) -> None:
        self._thread.join()
        self._listener.close()
