"""The TLS port and `openssl s_client` and stunnel; and stunnel in front of a server that has no TLS."""

from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.tls_served import HOST, TlsServed, certified
from tests.programs.tls_programs import s_client, stunnel
from tests.waiting import wait_until
from usbip_capture.demo.device import BULK_IN, BULK_OUT, BUSID
from usbip_capture.device import Device
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.errors import ServerUnreachable, UsbipError
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.server import events
from usbip_capture.server.events import Event
from usbip_capture.tls.certificates import CLIENT, fingerprint, own_identity
from usbip_capture.tls.client import connect_tls
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.wire.server import ServerConnection
from usbip_capture.wire.structs import OP_COMMON, OP_REQ_DEVLIST, VERSION

TIMEOUT = 20.0
REQUEST = OP_COMMON.pack(VERSION, OP_REQ_DEVLIST, 0)


@pytest.fixture
def served() -> Iterator[TlsServed]:
    with closing(TlsServed()) as made:
        yield made


def plain(port: int) -> Transport:
    return SocketTransport(connect(HOST, port, TIMEOUT), "stunnel")


def loop_back(device: Device) -> None:
    """A MiB through both bulk endpoints."""
    device.run(Urb.control(set_configuration(1).pack()), TIMEOUT)
    for number in range(16):
        data = bytes([number]) * 65536
        assert device.run(Urb(TransferType.BULK, BULK_OUT, len(data), data), TIMEOUT).status == 0
        assert device.run(Urb(TransferType.BULK, BULK_IN, len(data)), TIMEOUT).data == data


# -- openssl as the client


@pytest.mark.parametrize("options", [["-tls1_3"], ["-tls1_2"], ["-alpn", "usbip"], ["-alpn", "http/1.1"]], ids=" ".join)
def test_openssl_lists_the_devices(served: TlsServed, options: list[str]) -> None:
    conn = ServerConnection()
    conn.receive_data(REQUEST)
    run = s_client(served.port, "-quiet", *options, sent=REQUEST)
    assert run.stdout == conn.devlist([served.info])
    served.await_event(lambda event: event.kind == events.LISTED)


@pytest.mark.parametrize("version", ["-tls1_1", "-tls1"])
def test_openssl_with_an_old_version_is_refused(served: TlsServed, version: str) -> None:
    run = s_client(served.port, "-quiet", version, "-cipher", "ALL:@SECLEVEL=0", sent=REQUEST)
    assert run.returncode
    assert not run.stdout
    assert b"alert protocol version" in run.stderr
    refused = served.await_event(lambda event: event.kind == events.REFUSED)
    assert refused.text == "it offers no version of TLS that is still good"


def test_openssl_shows_the_fingerprint_that_the_server_prints(served: TlsServed) -> None:
    shown = s_client(served.port, "-showcerts")
    run = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256"], input=shown.stdout, capture_output=True, check=True
    )
    digest = bytes.fromhex(run.stdout.decode().strip().partition("=")[2].replace(":", ""))
    assert served.context.fingerprint == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def test_openssl_takes_up_its_session_until_the_client_is_removed(served: TlsServed, tmp_path: Path) -> None:
    """What a session ticket proves ends with the pairing that it came from."""
    ann = certified("ann")
    file, session = ann.write(tmp_path / "ann.pem"), str(tmp_path / "session")
    served.context.set_paired({"ann": ann.der})
    # openssl saves a session of 1.3 only once it has read something.
    options = ["-tls1_2", "-ign_eof", "-cert", file, "-key", file]
    assert b"Reused, " not in s_client(served.port, *options, "-sess_out", session, sent=REQUEST).stdout
    assert b"Reused, " in s_client(served.port, *options, "-sess_in", session, sent=REQUEST).stdout
    for listed in wait_until("both are listed", lambda: of_kind(served, events.LISTED, 2)):
        assert listed.peer is not None
        assert listed.peer.identity == "paired:ann"
    served.context.set_paired({})
    assert b"Reused, " not in s_client(served.port, *options, "-sess_in", session, sent=REQUEST).stdout
    served.await_event(lambda event: event.kind == events.REFUSED)


def of_kind(served: TlsServed, kind: str, count: int) -> list[Event]:
    """All of them, once there are so many."""
    found = [event for event in served.server.events.after(0, 100) if event.kind == kind]
    return found if len(found) >= count else []


# -- stunnel as the client, for programs that know no TLS


def test_a_device_is_used_through_a_client_s_stunnel(served: TlsServed, tmp_path: Path) -> None:
    known = tmp_path / "server.pem"
    known.write_text(ssl.DER_cert_to_PEM_cert(served.context.own.certificate))
    options = f"client = yes\nCAfile = {known}\nverifyPeer = yes"
    with stunnel(tmp_path / "stunnel", served.port, options) as port:
        assert [info.busid for info in list_devices(plain(port), TIMEOUT)] == [BUSID]
        with closing(import_device(plain(port), BUSID, TIMEOUT)) as device:
            assert served.identities() == [""]
            loop_back(device)
        wait_until("the server has noticed", lambda: not served.server.clients)


def test_stunnel_has_the_identity_of_its_certificate_each_time(served: TlsServed, tmp_path: Path) -> None:
    """It takes up its sessions."""
    ann = certified("ann")
    served.context.set_paired({"ann": ann.der})
    options = f"client = yes\ncert = {ann.write(tmp_path / 'ann.pem')}"
    with stunnel(tmp_path / "stunnel", served.port, options) as port:
        for _ in range(3):
            with closing(import_device(plain(port), BUSID, TIMEOUT)):
                assert served.identities() == ["paired:ann"]
            wait_until("the server has noticed", lambda: not served.server.clients)
        served.context.set_paired({})
        with pytest.raises(UsbipError):
            list_devices(plain(port), TIMEOUT)


def test_stunnel_that_knows_another_server_sends_nothing(served: TlsServed, tmp_path: Path) -> None:
    known = tmp_path / "server.pem"
    known.write_text(ssl.DER_cert_to_PEM_cert(certified("another").der))
    options = f"client = yes\nCAfile = {known}\nverifyPeer = yes"
    with stunnel(tmp_path / "stunnel", served.port, options) as port, pytest.raises(UsbipError):
        list_devices(plain(port), TIMEOUT)
    refused = served.await_event(lambda event: event.kind == events.REFUSED)
    assert refused.text == "it does not know the certificate of this machine"


# -- stunnel in front of a server that knows no TLS


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_device_is_used_through_a_server_s_stunnel(served: TlsServed, tmp_path: Path, version: str) -> None:
    own = certified("pi")
    options = f"cert = {own.write(tmp_path / 'pi.pem')}\nsslVersion = {version}"
    with stunnel(tmp_path / "stunnel", served.plain, options) as port:
        served.trust(port, fingerprint(own.der))
        assert [info.busid for info in list_devices(connect_tls(HOST, port, TIMEOUT), TIMEOUT)] == [BUSID]
        with closing(import_device(connect_tls(HOST, port, TIMEOUT), BUSID, TIMEOUT)) as device:
            loop_back(device)
            served.server.disconnect(BUSID)
            wait_until("the client has noticed", lambda: not lives(device))
            assert "closed the connection" in device.loss


def lives(device: RemoteDevice) -> bool:
    device.run(Urb.control(set_configuration(1).pack()), TIMEOUT)
    return device.alive


def test_a_server_s_stunnel_that_wants_a_certificate(served: TlsServed, tmp_path: Path) -> None:
    """It has one of a paired client only."""
    own, mine = certified("pi"), own_identity(CLIENT)
    known = tmp_path / "client.pem"
    known.write_text(ssl.DER_cert_to_PEM_cert(mine.certificate))
    options = f"cert = {own.write(tmp_path / 'pi.pem')}\nCAfile = {known}\nverifyPeer = yes"
    with stunnel(tmp_path / "stunnel", served.plain, options) as port:
        served.trust(port, fingerprint(own.der))
        # stunnel resets the connection, which may come before its alert has been read.
        with pytest.raises(ServerUnreachable, match=r"^tls://127.0.0.1:\d+.*: pair with it"):
            list_devices(connect_tls(HOST, port, TIMEOUT), TIMEOUT)
        served.trust(port, fingerprint(own.der), paired=True)
        assert [info.busid for info in list_devices(connect_tls(HOST, port, TIMEOUT), TIMEOUT)] == [BUSID]


@pytest.mark.parametrize("days", [(-20, -10), (10, 20)], ids=["expired", "not valid yet"])
def test_a_known_server_may_have_any_date(served: TlsServed, tmp_path: Path, days: tuple[int, int]) -> None:
    """As with ssh it is the fingerprint that counts, and clocks of small boards are often wrong."""
    own = certified("pi", days=days)
    with stunnel(tmp_path / "stunnel", served.plain, f"cert = {own.write(tmp_path / 'pi.pem')}") as port:
        served.trust(port, fingerprint(own.der))
        assert list_devices(connect_tls(HOST, port, TIMEOUT), TIMEOUT)
