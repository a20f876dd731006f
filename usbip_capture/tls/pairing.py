"""Pairing: a client and a server that share a one-time code remember each other's certificates. Pure.

Within TLS, in lines of JSON, each at most `MAX_LINE` bytes:

| from | has |
| --- | --- |
| server | `salt`, `nonce` |
| client | `name`, `certificate`, `nonce`, `proof` |
| server | `name`, `proof`; or `error` |

A proof is HMAC-SHA256 of who makes it and of both certificates, nonces and the name, with a key of scrypt of the code.
Who is in between has shown a certificate of its own: the proofs of both sides differ then. What it learns does not
help: 60 bits are not found by trying within the minutes for which a code is good, with 50 ms for each guess.
Ref: RFC 7914 (scrypt), RFC 2104 (HMAC)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import NamedTuple

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError

MAX_LINE = 16 << 10
#: Of a code: 12 of 32 characters, those that look like others left out.
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_LENGTH, _GROUP = 12, 4
#: Seconds for which a code is good, and how many may be tried.
LIFETIME, TRIES = 300.0, 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_RANDOM_SIZE = 16
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}
_CLIENT, _SERVER = b"client", b"server"


class PairingFailed(RemoteProtocolError):
    """The other side has no such code, or is not the one that it is meant to be."""


def code_of(random: bytes) -> str:
    """A code from 8 random bytes, as people read it: `ABCD-EFGH-JKLM`."""
    number = int.from_bytes(random, "big")
    characters = [_ALPHABET[number >> 5 * place & 31] for place in range(_LENGTH)]
    return "-".join("".join(characters[at : at + _GROUP]) for at in range(0, _LENGTH, _GROUP))


def read_code(text: str) -> str:
    """As `code_of` has it, from what a person has typed. Raises LocalProtocolError."""
    typed = "".join(text.upper().replace("-", " ").split())
    if len(typed) != _LENGTH or not set(typed) <= set(_ALPHABET):
        raise LocalProtocolError(f"{text!r} is not a code: type the {_LENGTH} characters that the server has printed")
    return "-".join(typed[at : at + _GROUP] for at in range(0, _LENGTH, _GROUP))


def check_name(name: str) -> str:
    """The name of a client, by which rules know it. Raises LocalProtocolError."""
    if not _NAME.fullmatch(name):
        raise LocalProtocolError(f"{name!r} is not a name of a client: up to 40 letters, digits, and . _ - in it")
    return name


def name_from(host: str) -> str:
    """A name that may be one, of that of a machine."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", host.partition(".")[0])[:40].lstrip("._-") or "client"


class Offer:
    """A code that the server has given out, once."""

    def __init__(self, code: str, now: float) -> None:
        self.code = code
        self.until = now + LIFETIME
        self._tries = TRIES

    def attempt(self, now: float) -> bool:
        """Whether a client may try now, which counts."""
        self._tries -= 1
        return self._tries >= 0 and now < self.until

    def end(self) -> None:
        """It has been used."""
        self._tries = 0


class Request(NamedTuple):
    """What a client has sent. certificate: in DER."""

    name: str
    certificate: bytes
    nonce: bytes
    proof: bytes


class ServerSide:
    """One conversation. certificate: the server's own, in DER. random: 32 bytes."""

    def __init__(self, certificate: bytes, random: bytes) -> None:
        self._certificate = certificate
        self._salt, self._nonce = random[:_RANDOM_SIZE], random[_RANDOM_SIZE:]
        self._key = b""
        self._transcript = b""

    def hello(self) -> bytes:
        """The first line."""
        return _line(salt=_text(self._salt), nonce=_text(self._nonce))

    def read(self, line: bytes) -> Request:
        """What the client has sent. Raises RemoteProtocolError."""
        fields = _fields(line)
        name = fields.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RemoteProtocolError("the request has no name that a client may have")
        return Request(name, _bytes(fields, "certificate"), _bytes(fields, "nonce"), _bytes(fields, "proof"))

    def is_right(self, request: Request, code: str) -> bool:
        """Whether the client knows the code, and has seen our certificate."""
        self._key = _key(code, self._salt)
        self._transcript = _transcript(self._certificate, request.certificate, self._nonce, request.nonce, request.name)
        return hmac.compare_digest(request.proof, _proof(self._key, _CLIENT, self._transcript))

    def answer(self) -> bytes:
        """For a request that was right."""
        return _line(proof=_text(_proof(self._key, _SERVER, self._transcript)))

    @staticmethod
    def refusal(sentence: str) -> bytes:
        """For any other."""
        return _line(error=sentence)


class ClientSide:
    """One conversation. server: the certificate that the server has shown, own: ours, both in DER. nonce: 16 bytes."""

    def __init__(self, server: bytes, own: bytes, name: str, code: str, nonce: bytes) -> None:
        self._server = server
        self._own = own
        self._name = check_name(name)
        self._code = read_code(code)
        self._nonce = nonce
        self._key = b""
        self._transcript = b""

    def request(self, hello: bytes) -> bytes:
        """The answer to the server's first line. Raises RemoteProtocolError."""
        fields = _fields(hello)
        salt, nonce = _bytes(fields, "salt"), _bytes(fields, "nonce")
        self._key = _key(self._code, salt)
        self._transcript = _transcript(self._server, self._own, nonce, self._nonce, self._name)
        return _line(
            name=self._name,
            certificate=_text(self._own),
            nonce=_text(self._nonce),
            proof=_text(_proof(self._key, _CLIENT, self._transcript)),
        )

    def check(self, answer: bytes) -> None:
        """The server's last line. Raises PairingFailed, RemoteProtocolError."""
        fields = _fields(answer)
        if "error" in fields:
            raise PairingFailed(str(fields["error"]))
        if not hmac.compare_digest(_bytes(fields, "proof"), _proof(self._key, _SERVER, self._transcript)):
            raise PairingFailed("it does not know the code: somebody may be in between")


def _key(code: str, salt: bytes) -> bytes:
    return hashlib.scrypt(code.encode(), salt=salt, **_SCRYPT)


def _transcript(server: bytes, client: bytes, server_nonce: bytes, client_nonce: bytes, name: str) -> bytes:
    parts = (server, client, server_nonce, client_nonce, name.encode())
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _proof(key: bytes, who: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key, who + transcript, "sha256")


def _line(**fields: str) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _fields(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("what it sends is not a pairing") from error
    if not isinstance(found, dict):
        raise RemoteProtocolError("what it sends is not a pairing")
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(fields: dict[str, object], name: str) -> bytes:
    value = fields.get(name)
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise RemoteProtocolError(f"what it sends has no {name}")
