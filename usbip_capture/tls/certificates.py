"""This machine's key and certificate, made when first needed, and the fingerprints by which certificates are known."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import re
import socket
import ssl
from typing import NamedTuple

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.system.folders import configuration_folder
from usbip_capture.system.replacement import Replacement

#: Whose: of the server, and of the user of clients.
SERVER, CLIENT = "server", "client"
_VALID_DAYS = 100 * 365
_PREFIX = "SHA256:"


class Identity(NamedTuple):
    """path: a file with key and certificate in PEM, for its owner only. certificate: in DER."""

    path: str
    certificate: bytes

    @property
    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.certificate)


def fingerprint(certificate: bytes) -> str:
    """Of a certificate in DER, as ssh writes those of keys: `SHA256:` and 43 characters of base64."""
    return _PREFIX + base64.b64encode(hashlib.sha256(certificate).digest()).decode().rstrip("=")


def read_fingerprint(text: str) -> str:
    """As `fingerprint` has it, also from hexadecimal digits, as openssl prints them. Raises LocalProtocolError."""
    if is_fingerprint(text):
        return text
    digits = text.rpartition("=")[2].replace(":", "")
    if not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise LocalProtocolError(f"{text!r} is not a fingerprint: SHA256: and 43 characters, or 64 hexadecimal digits")
    return _PREFIX + base64.b64encode(bytes.fromhex(digits)).decode().rstrip("=")


def is_fingerprint(text: str) -> bool:
    """Whether it may be one."""
    try:
        digest = base64.b64decode(text.removeprefix(_PREFIX) + "=", validate=True)
    except ValueError:
        return False
    return text.startswith(_PREFIX) and len(digest) == hashlib.sha256().digest_size


def own_identity(whose: str) -> Identity:
    """This machine's, made at the first call. whose: SERVER or CLIENT. Raises UsbipError."""
    path = identity_path(whose)
    if not os.path.exists(path):
        _make(whose, path)
    return read_identity(path)


def identity_path(whose: str) -> str:
    """Where it is kept."""
    return os.path.join(configuration_folder(), f"{whose}.pem")


def read_identity(path: str) -> Identity:
    """Raises UsbipError if the file is not a key with its certificate."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read()
        if os.name == "posix" and os.stat(path).st_mode & 0o077:
            raise UsbipError(f"{path} can be read by others, and it has a private key: chmod 600 {path}")
        begin, end = ssl.PEM_HEADER, ssl.PEM_FOOTER
        certificate = ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)])
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it has no private key with its certificate"
        raise UsbipError(f"{path} cannot be used: {reason}: restore it, or move it, and a new one is made") from error
    return Identity(path, certificate)


def _make(whose: str, path: str) -> None:
    name = f"{socket.gethostname()[:40]} usbip-capture {whose}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with Replacement(path) as file:
            file.write(_key_and_certificate(name))
    except OSError as error:
        raise UsbipError(f"{path} cannot be written: {error.strerror or error}: make its folder writable") from error


def _key_and_certificate(name: str) -> bytes:
    """PEM of a new key of P-256 and a certificate signed by itself, which can sign no other one."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UsbipError(
            "TLS needs the package cryptography to make a certificate: pip install cryptography; or, where pipx has "
            f"installed this, pipx inject usbip-capture cryptography ({error})"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def check_client_certificate(certificate: bytes) -> None:
    """Raises UsbipError for one (DER) that could sign others, which would all be let in then, or that is not one."""
    try:
        from cryptography import x509
    except ImportError as error:
        raise UsbipError(f"pairing needs the package cryptography: pip install cryptography ({error})") from error
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        basic = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
        parsed.verify_directly_issued_by(parsed)
    except Exception as error:  # that package has many, and what it is given comes from a stranger
        raise UsbipError("what the client has sent is not a certificate of its own") from error
    if basic.ca:
        raise UsbipError("the certificate of the client could sign others")
