"""The server's side: its certificate, and which clients' certificates it knows."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

from usbip_capture.errors import UsbipError
from usbip_capture.net.transport import Transport
from usbip_capture.tls.certificates import Identity, fingerprint
from usbip_capture.tls.client import PAIRING, USBIP
from usbip_capture.tls.transport import TlsTransport


class Accepted(NamedTuple):
    """A client whose handshake is done. identity: as `net.listening.Peer` has it. protocol: USBIP or PAIRING."""

    transport: TlsTransport
    identity: str
    protocol: str


class _Known(NamedTuple):
    """What handshakes that begin now go by. names: fingerprint -> name, of those that are paired for `context`."""

    context: ssl.SSLContext
    names: Mapping[str, str]


class ServerContext:
    """own: key and certificate. client_ca: a file of authorities whose certificates are identities, too.

    Clients without a certificate are let in: rules decide what they may. Raises UsbipError.
    """

    def __init__(self, own: Identity, client_ca: str = "") -> None:
        self.own = own
        self._client_ca = client_ca
        self._known = _Known(self._made({}), {})
        self._paired: Mapping[str, str] = {}  # as `_Known.names`, without those that were removed since

    @property
    def fingerprint(self) -> str:
        """Of the server's certificate."""
        return self.own.fingerprint

    def set_paired(self, certificates: Mapping[str, bytes]) -> None:
        """Whose certificates (DER) are known under which names, from the next connection on. None may sign others.

        Raises UsbipError; then nobody is known that was not before, and who is not among these is not either.
        """
        names = {fingerprint(certificate): name for name, certificate in certificates.items()}
        self._paired = {shown: name for shown, name in self._paired.items() if names.get(shown) == name}
        context = self._made(certificates)
        self._paired = names
        self._known = _Known(context, names)

    def accept(self, transport: Transport, timeout: float) -> Accepted:
        """The handshake, within `timeout` seconds. Raises OSError, TimeoutError; the transport stays the caller's."""
        known = self._known
        tls = TlsTransport(transport, known.context, server_side=True)
        tls.handshake(timeout)
        return Accepted(tls, self._identity(tls, known), tls.protocol or USBIP)

    def _identity(self, tls: TlsTransport, known: _Known) -> str:
        """known: from the beginning of the handshake, which takes as long as the client likes. Raises OSError."""
        certificate = tls.certificate
        if not certificate:
            return ""
        shown = fingerprint(certificate)
        name = known.names.get(shown)
        if name is None:
            return f"cert:{_name(tls.subject)}"
        if self._paired.get(shown) != name:  # its certificate may be in the name of anybody
            raise ConnectionAbortedError(errno.ECONNABORTED, f"the client is not paired as {name} any more")
        return f"paired:{name}"

    def _made(self, paired: Mapping[str, bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load_own(context)
        context.set_alpn_protocols([USBIP, PAIRING])
        context.verify_mode = ssl.CERT_OPTIONAL
        # A paired certificate is its own authority; not being one of others, it can make no further ones.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            if self._client_ca:
                context.load_verify_locations(cafile=self._client_ca)
            for certificate in paired.values():
                context.load_verify_locations(cadata=certificate)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it has no certificates in PEM"
            raise UsbipError(f"{self._client_ca or 'a paired certificate'} cannot be used: {reason}") from error
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.own.path)
        except OSError as error:  # `SSLError` is one
            reason = "it has no private key with its certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsbipError(f"{self.own.path} cannot be used: {reason}: restore it") from error


def _name(subject: Mapping[str, Any]) -> str:
    """Its first name of DNS, URI or e-mail, else its common name. Ref: RFC 5280, 4.2.1.6"""
    for kind in ("DNS", "URI", "email"):
        for found, value in subject.get("subjectAltName", ()):
            if found == kind:
                return str(value)
    for part in subject.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""
