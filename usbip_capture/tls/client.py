"""The client's side: a connection to a server whose certificate is the one that is remembered."""

from __future__ import annotations

import os
import ssl

from usbip_capture.errors import ServerUnreachable, UntrustedServer, UsbipError
from usbip_capture.net.address import TLS, TLS_PORT, format_address
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.system.shown import one_line, shell_word
from usbip_capture.tls.certificates import CLIENT, fingerprint, identity_path, read_identity
from usbip_capture.tls.known_servers import KnownServer, known_servers, known_servers_path
from usbip_capture.tls.transport import TlsTransport

#: What is spoken within TLS. Ref: RFC 7301
USBIP, PAIRING = "usbip", "usbip-pair"


def tls_address(host: str, port: int) -> str:
    """As people write it: `tls://pi`."""
    return format_address(f"{TLS}://[{host}]" if ":" in host else f"{TLS}://{host}", port)


def connect_tls(host: str, port: int = TLS_PORT, timeout: float = 5.0) -> Transport:
    """A connection to a server that is trusted; `timeout` seconds to connect, and as many for the handshake.

    Raises UntrustedServer, ServerUnreachable, UsbipError.
    """
    known, others = known_at(host, port)
    paired = any(one.paired for one in ([known] if known else others))
    transport = open_tls(host, port, timeout, paired=paired)
    try:
        check(host, port, transport.certificate, known or same_certificate(transport.certificate, others))
    except BaseException:
        transport.close()
        raise
    return transport


def known_at(host: str, port: int) -> tuple[KnownServer | None, list[KnownServer]]:
    """The server that is remembered, and those at other ports of its host. Raises FileFormatError, UsbipError."""
    host = host.lower()
    servers = known_servers()
    return servers.get((host, port)), [one for (name, at), one in servers.items() if name == host and at != port]


def same_certificate(certificate: bytes, servers: list[KnownServer]) -> KnownServer | None:
    """That of `servers` which has it: all servers of a user of a machine have the same one."""
    found = fingerprint(certificate)
    return next((one for one in servers if one.fingerprint == found), None)


def open_tls(host: str, port: int, timeout: float, *, paired: bool = False, protocol: str = USBIP) -> TlsTransport:
    """A connection to whoever is there: its certificate is to be looked at before anything is sent.

    paired: show the certificate of this user. Raises ServerUnreachable, UsbipError.
    """
    where = tls_address(host, port)
    context = client_context(paired=paired, protocol=protocol)
    inner = SocketTransport(connect(host, port, timeout, "a USB/IP server with TLS"), where)
    transport = TlsTransport(inner, context)
    try:
        transport.handshake(timeout)
    except TimeoutError as error:
        transport.close()
        raise ServerUnreachable(
            f"{where} accepts connections but does not answer within {timeout:g} s: is that the port of a server's "
            "--tls?"
        ) from error
    except OSError as error:
        transport.close()
        raise ServerUnreachable(f"{where} ended the connection: {error.strerror or error}") from error
    return transport


def client_context(*, paired: bool = False, protocol: str = USBIP) -> ssl.SSLContext:
    """For connections whose certificate is looked at by `check`. Raises UsbipError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no authority knows such servers: the fingerprint decides
    context.set_alpn_protocols([protocol])
    if paired:
        path = identity_path(CLIENT)
        if not os.path.exists(path):
            raise UsbipError(
                f"{path} is missing, by which servers know this client: restore it, or pair with them again"
            )
        context.load_cert_chain(read_identity(path).path)
    return context


def check(host: str, port: int, certificate: bytes, known: KnownServer | None) -> None:
    """Raises UntrustedServer if it is not the certificate that is remembered."""
    found, where = fingerprint(certificate), tls_address(host, port)
    if known is None:
        raise UntrustedServer(
            f"{where} is not known yet: its certificate is {found}; if its server prints the same, run: "
            f"usbip-capture trust {shell_word(where)} {found}",
            host,
            port,
            found,
        )
    if known.fingerprint != found:
        raise UntrustedServer(
            f"{where} is another machine than before, or somebody is in between: its certificate is {found}, and it "
            f"was {known.fingerprint}, in {one_line(known_servers_path())}; if the server has a new one, run: "
            f"usbip-capture trust {shell_word(where)} {found}",
            host,
            port,
            found,
            known.fingerprint,
        )
