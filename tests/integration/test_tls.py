"""USB/IP within TLS, between our server and our client, and what either takes of others."""

from __future__ import annotations

import hashlib
import os
import ssl
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from usbip_capture.cli import exits
from usbip_capture.cli.main import main
from usbip_capture.demo.device import BUSID, DemoDevice
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import import_device
from usbip_capture.errors import FileFormatError, ServerUnreachable, UntrustedServer, UsbipError
from usbip_capture.net.connecting import connect
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server import Server
from usbip_capture.system import folder_lock
from usbip_capture.tls import certificates, client, known_servers
from usbip_capture.tls.certificates import own_identity
from usbip_capture.tls.client import connect_tls
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.tls.server import ServerContext
from usbip_capture.tls.transport import TlsTransport
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

TIMEOUT = 20.0
HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (certificates, known_servers):
        monkeypatch.setattr(module, "configuration_folder", lambda: str(tmp_path / "configuration"))


class Served:
    """A server of the demo device within TLS."""

    def __init__(self) -> None:
        self.server = Server()
        device = DemoDevice()
        self.server.add(device.info, DemoDevice)
        self.context = ServerContext(own_identity(certificates.SERVER))
        self.pairing: list[Peer] = []
        self.port = self.server.listen_tls(HOST, 0, self.context, self._pair)[1]

    def _pair(self, transport: TlsTransport, peer: Peer) -> None:
        self.pairing.append(peer)
        transport.send([b"a pairing"])

    def trust(self, *, paired: bool = False) -> None:
        remember(HOST, self.port, KnownServer(self.context.fingerprint, paired))


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.server.close()


def descriptor(port: int) -> bytes:
    with closing(import_device(connect_tls(HOST, port, TIMEOUT), BUSID, TIMEOUT)) as device:
        completion = device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), TIMEOUT)
        return bytes(completion.data)


def test_a_device_is_listed_and_used(served: Served) -> None:
    served.trust()
    assert [info.busid for info in list_devices(connect_tls(HOST, served.port, TIMEOUT), TIMEOUT)] == [BUSID]
    assert len(descriptor(served.port)) == 18


def test_a_server_that_is_not_known_is_sent_nothing(served: Served) -> None:
    with pytest.raises(UntrustedServer, match=r"is not known yet: .* SHA256:.{43}; .*trust tls://127") as caught:
        connect_tls(HOST, served.port, TIMEOUT)
    assert (caught.value.known, caught.value.fingerprint) == ("", served.context.fingerprint)


def test_a_server_with_another_certificate_is_refused(served: Served) -> None:
    known = certificates.fingerprint(b"another")
    remember(HOST, served.port, KnownServer(known))
    with pytest.raises(UntrustedServer, match=r"another machine than before") as caught:
        connect_tls(HOST, served.port, TIMEOUT)
    assert (caught.value.known, caught.value.fingerprint) == (known, served.context.fingerprint)
    assert known in str(caught.value)


def test_a_paired_client_has_its_name(served: Served) -> None:
    own = own_identity(certificates.CLIENT)
    served.trust(paired=True)
    with pytest.raises(UsbipError, match="it does not know the certificate of this machine: pair with it again"):
        descriptor(served.port)
    served.context.set_paired({"laptop": own.certificate})
    with closing(import_device(connect_tls(HOST, served.port, TIMEOUT), BUSID, TIMEOUT)):
        assert [one.peer.identity for one in served.server.clients] == ["paired:laptop"]
    served.context.set_paired({})
    with pytest.raises(UsbipError):
        descriptor(served.port)


def test_who_connects_for_pairing(served: Served) -> None:
    with closing(client.open_tls(HOST, served.port, TIMEOUT, protocol=client.PAIRING)) as transport:
        assert transport.receive(100, TIMEOUT) == b"a pairing"
        assert transport.receive(100, TIMEOUT) == b""
    assert [peer.host for peer in served.pairing] == [HOST]


def test_the_plain_port_is_not_one_of_tls() -> None:
    with closing(Server()) as server:
        port = server.listen(HOST, 0)[1]
        with pytest.raises(ServerUnreachable, match="ended the connection: it"):
            connect_tls(HOST, port, TIMEOUT)


def test_an_old_version_of_tls_is_refused(served: Served) -> None:
    context = client.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    transport = TlsTransport(SocketTransport(connect(HOST, served.port, TIMEOUT), "a server"), context)
    with closing(transport), pytest.raises(OSError, match="no version of TLS in common"):
        transport.handshake(TIMEOUT)


def test_the_own_key_stays_the_same_and_private() -> None:
    own = own_identity(certificates.SERVER)
    assert own_identity(certificates.SERVER) == own
    assert own.fingerprint != own_identity(certificates.CLIENT).fingerprint
    path = Path(own.path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(UsbipError, match="can be read by others"):
        own_identity(certificates.SERVER)
    path.chmod(0o600)
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 30, 37):  # never another one in its place
        path.write_bytes(whole[:cut])
        with pytest.raises(UsbipError, match="cannot be used: it has no private key with its certificate"):
            own_identity(certificates.SERVER)


def test_a_certificate_that_is_trusted_again_stays_paired(capsys: pytest.CaptureFixture[str]) -> None:
    found, other = certificates.fingerprint(b"one"), certificates.fingerprint(b"another")
    remember("Pi", 3241, KnownServer(found, paired=True))
    assert main(["trust", "tls://pi", found]) == 0
    assert known_servers.known_servers() == {("pi", 3241): KnownServer(found, paired=True)}
    assert main(["trust", "tls://pi", other]) == 0
    assert known_servers.known_servers() == {("pi", 3241): KnownServer(other)}


def test_a_server_that_is_not_trusted_has_the_exit_code_of_one(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trust", f"tls://{HOST}:{served.port}"]) == exits.SERVER
    assert f"run: usbip-capture trust tls://{HOST}:{served.port} SHA256:" in capsys.readouterr().err


def test_a_server_is_not_remembered_while_another_program_writes_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    found = certificates.fingerprint(b"one")
    remember("pi", 3241, KnownServer(found))
    monkeypatch.setattr(folder_lock, "_TIMEOUT", 0.0)
    fd = os.open(os.path.dirname(known_servers.known_servers_path()), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        locked = "another program keeps it locked: try again"
        with pytest.raises(UsbipError, match=locked):
            remember("pi", 3241, None)
        with pytest.raises(UsbipError, match=locked):
            known_servers.trust("other", 3241, found)
    finally:
        os.close(fd)
    assert known_servers.known_servers() == {("pi", 3241): KnownServer(found)}


def test_known_servers_that_are_cut_are_refused_with_their_line() -> None:
    remember("pi", 3241, KnownServer(certificates.fingerprint(b"1")))
    remember("PC", 3242, KnownServer(certificates.fingerprint(b"2"), paired=True))
    path = Path(known_servers.known_servers_path())
    whole = path.read_bytes()
    both = known_servers.known_servers()
    assert both == {
        ("pi", 3241): KnownServer(certificates.fingerprint(b"1")),
        ("pc", 3242): KnownServer(certificates.fingerprint(b"2"), paired=True),
    }
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        try:
            found = known_servers.known_servers()
        except FileFormatError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert whole[cut - 1 : cut] == b"\n"
            assert found.items() <= both.items()


def test_a_client_that_has_lost_its_key_pairs_again(served: Served) -> None:
    own = own_identity(certificates.CLIENT)
    served.context.set_paired({"laptop": own.certificate})
    served.trust(paired=True)
    Path(own.path).unlink()
    with pytest.raises(UsbipError, match="is missing, by which servers know this client: restore it, or pair with"):
        descriptor(served.port)


def test_a_fingerprint_as_openssl_prints_it() -> None:
    wanted = certificates.fingerprint(b"1")
    digits = hashlib.sha256(b"1").hexdigest().upper()
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    for text in (wanted, digits, digits.lower(), colons, f"sha256 Fingerprint={colons}"):
        assert certificates.read_fingerprint(text) == wanted
    for text in ("", "SHA256:", wanted[:-1], digits[:-1], "MD5=00"):
        with pytest.raises(UsbipError, match="is not a fingerprint: SHA256: and 43 characters, or 64 hexadecimal"):
            certificates.read_fingerprint(text)
