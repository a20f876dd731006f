"""Pairing: a client and a server that share a one-time code remember each other's certificates. Pure.

Within TLS, in lines of JSON, each at most `MAX_LINE` bytes:

| from | has |
| --- | --- |
| server | `salt`, `nonce` |
| client | `name`, `certificate`, `nonce`, `proof` |
| server | `proof` |

In place of each of its lines the server may send `error`, one of REASONS, and ends the conversation.

A proof is HMAC-SHA256 of who makes it and of both certificates, nonces and the name, with a key of scrypt of the code.
Whoever is in between has shown a certificate of its own, so that the proofs of both sides differ. What it learns does
not help: 60 bits are not guessed within the minutes for which a code is good, at 50 ms for each guess.
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
_RANDOM_SIZE, _PROOF_SIZE = 16, 32
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}
_CLIENT, _SERVER = b"client", b"server"

#: Why a server does not pair. They are sent, the sentences are not: a stranger's text is not for people to act upon.
NO_OFFER, WRONG_CODE, BUSY = "no-offer", "wrong-code", "busy"
NAME_TAKEN, PAIRED_ALREADY, NOT_ACCEPTED, FAILED = "name-taken", "paired-already", "not-accepted", "failed"
NAME_FIXED = "name-fixed"
REASONS = {
    NO_OFFER: "no code is good there now: run `usbip-capture pair --offer` on that machine",
    WRONG_CODE: "the code is wrong, or somebody is in between: compare the code, or have another one made",
    BUSY: "others are pairing with it at this moment: try again",
    NAME_TAKEN: "another client has this name there: choose one with --name, or remove it there with pair --remove",
    NAME_FIXED: "the code is for a client with another name: give the one that was offered there, with --name",
    PAIRED_ALREADY: "it knows this client by another name: remove that there with `usbip-capture pair --remove NAME`",
    NOT_ACCEPTED: "it does not accept the certificate of this client: move its client.pem away, and pair again",
    FAILED: "it cannot remember this client: its log has the reason",
}


class PairingFailed(RemoteProtocolError):
    """The other side has no such code, or is not the one that it is meant to be. reason: of REASONS, or empty."""

    def __init__(self, sentence: str, reason: str = "") -> None:
        super().__init__(sentence)
        self.reason = reason

    @classmethod
    def of(cls, reason: str) -> PairingFailed:
        """With the sentence of a reason."""
        return cls(REASONS.get(reason, "it refuses, without a reason that is known here"), reason)


def code_of(random: bytes) -> str:
    """A code from 8 random bytes, as people read it: `ABCD-EFGH-JKLM`."""
    number = int.from_bytes(random, "big")
    characters = [_ALPHABET[number >> 5 * place & 31] for place in range(_LENGTH)]
    return "-".join("".join(characters[at : at + _GROUP]) for at in range(0, _LENGTH, _GROUP))


def read_code(text: str) -> str:
    """As `code_of` has it, from what a person has typed. Raises LocalProtocolError."""
    typed = "".join(text.upper().replace("-", " ").split())
    if not text.isascii() or len(typed) != _LENGTH or not set(typed) <= set(_ALPHABET):
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
    """A code that the server has given out, once. name: the only one of a client for it; empty: any."""

    def __init__(self, code: str, now: float, name: str = "") -> None:
        self.code = code
        self.name = name
        self.until = now + LIFETIME
        self._tries = TRIES

    def is_good(self, now: float) -> bool:
        """Whether a client may try now."""
        return self._tries > 0 and now < self.until

    def attempt(self, now: float) -> bool:
        """The same, and it counts as a try."""
        good = self.is_good(now)
        self._tries -= 1
        return good


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
        nonce, proof = _bytes(fields, "nonce", _RANDOM_SIZE), _bytes(fields, "proof", _PROOF_SIZE)
        return Request(name, _bytes(fields, "certificate"), nonce, proof)

    def is_right(self, request: Request, code: str) -> bool:
        """Whether the client knows the code, and has seen our certificate."""
        self._key = _key(code, self._salt)
        self._transcript = _transcript(self._certificate, request.certificate, self._nonce, request.nonce, request.name)
        return hmac.compare_digest(request.proof, _proof(self._key, _CLIENT, self._transcript))

    def answer(self) -> bytes:
        """For a request that was right."""
        return _line(proof=_text(_proof(self._key, _SERVER, self._transcript)))

    @staticmethod
    def refusal(reason: str) -> bytes:
        """For any other, or in place of the first line. reason: of REASONS."""
        return _line(error=reason)


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
        """The answer to the server's first line. Raises PairingFailed, RemoteProtocolError."""
        fields = _answer(hello)
        salt, nonce = _bytes(fields, "salt", _RANDOM_SIZE), _bytes(fields, "nonce", _RANDOM_SIZE)
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
        proof = _bytes(_answer(answer), "proof", _PROOF_SIZE)
        if not self._key or not hmac.compare_digest(proof, _proof(self._key, _SERVER, self._transcript)):
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


def _answer(line: bytes) -> dict[str, object]:
    """Of the server. Raises PairingFailed, RemoteProtocolError."""
    fields = _fields(line)
    if "error" in fields:
        raise PairingFailed.of(str(fields["error"]))
    return fields


def _fields(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("what it sends does not belong to a pairing") from error
    if not isinstance(found, dict):
        raise RemoteProtocolError("what it sends does not belong to a pairing")
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(fields: dict[str, object], name: str, size: int = 0) -> bytes:
    """size: that it must have; 0 for any but none. Raises RemoteProtocolError."""
    value = fields.get(name)
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not data or len(data) != (size or len(data)):
        raise RemoteProtocolError(f"what it sends has no {name}")
    return data
