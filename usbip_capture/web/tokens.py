"""The tokens by which people and programs sign in to the dashboard: a name, a role, and the hash of each.

They lie in `web_tokens.json` beside the configuration, for its user only. A token itself is shown once, when made.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from usbip_capture.errors import FileFormatError, LocalProtocolError, UsbipError
from usbip_capture.servers.configuration import MAX_BYTES, read_bytes
from usbip_capture.system.folder_lock import locked_folder
from usbip_capture.system.folders import configuration_folder
from usbip_capture.system.replacement import Replacement
from usbip_capture.web.roles import ADMINISTER, ROLES
from usbip_capture.web.routing import Conflict, NotFound

_NAME = "web_tokens.json"
#: Bytes of a token, and characters of its name.
_SIZE, _MAX_NAME = 32, 64
#: Who is there from the first start on.
FIRST = "admin"


class Token(NamedTuple):
    """sha256: of the token, in hexadecimal digits. created: seconds since 1970."""

    name: str
    role: str
    sha256: str
    created: float


def tokens_path() -> str:
    """Where they are, whether there are any or not."""
    return os.path.join(configuration_folder(), _NAME)


class Tokens:
    """The tokens in the file at `path`, as it is now: another program may change it. Threads may share this."""

    def __init__(self, path: str = "") -> None:
        self.path = path or tokens_path()
        self._lock = threading.Lock()
        self._state: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()

    def all(self) -> Sequence[Token]:
        """Those that there are, in the order in which they were made. Raises FileFormatError, UsbipError."""
        with self._lock:
            state = _state(self.path)
            if state != self._state:
                self._tokens = _read(self.path)
                self._state = state
            return self._tokens

    def find(self, token: str) -> Token | None:
        """Which of them this text is, in a time that does not depend on it. Raises FileFormatError, UsbipError."""
        given = _hash(token)
        found = None
        for known in self.all():
            if hmac.compare_digest(known.sha256, given):
                found = known
        return found

    def named(self, name: str) -> Token | None:
        """The one of this name. Raises FileFormatError, UsbipError."""
        return next((known for known in self.all() if known.name == name), None)

    def make_first(self) -> str:
        """The token of FIRST, who may do everything, if there is none at all yet; else empty. Raises UsbipError."""
        return "" if self.all() else self.add(FIRST, ADMINISTER)

    def add(self, name: str, role: str) -> str:
        """A new token. Raises LocalProtocolError, Conflict if there is one of this name, UsbipError."""
        _check(name, role)
        token = secrets.token_urlsafe(_SIZE)
        made = Token(name, role, _hash(token), time.time())
        with self._changing() as tokens:
            if any(known.name == name for known in tokens):
                raise Conflict(f"there is a token of the name {name!r}: choose another name, or remove that one first")
            tokens.append(made)
        return token

    def remove(self, name: str) -> None:
        """Whoever uses it is signed out. Raises NotFound, Conflict for the last one that may administer, UsbipError."""
        with self._changing() as tokens:
            rest = [known for known in tokens if known.name != name]
            if len(rest) == len(tokens):
                raise NotFound(f"there is no token of the name {name!r}")
            if not any(known.role == ADMINISTER for known in rest):
                raise Conflict(f"{name!r} is the last token that may administer: make another one first")
            tokens[:] = rest

    def _changing(self) -> _Change:
        return _Change(self.path)


class _Change:
    """The tokens as a list, which is written when the block has ended well; no other program changes it meanwhile."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._held = locked_folder(os.path.dirname(path))
        self._tokens: list[Token] = []

    def __enter__(self) -> list[Token]:
        try:
            self._held.__enter__()
        except OSError as error:
            raise _unwritable(self._path, error) from error
        try:
            self._tokens = list(_read(self._path))
        except BaseException as error:
            self._held.__exit__(type(error), error, None)
            raise
        return self._tokens

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write()
        except OSError as error:
            raise _unwritable(self._path, error) from error
        finally:
            self._held.__exit__(None, None, None)

    def _write(self) -> None:
        data = json.dumps({"tokens": [token._asdict() for token in self._tokens]}, indent=1).encode()
        if len(data) >= MAX_BYTES:
            raise LocalProtocolError("there are too many tokens: remove some")
        with Replacement(self._path) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _unwritable(path: str, error: OSError) -> UsbipError:
    return UsbipError(f"{path} cannot be written: {error.strerror or error}: make its folder writable")


def _hash(token: str) -> str:
    """A token has 256 random bits: no guess is cheaper for a hash that is fast."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _check(name: str, role: str) -> None:
    if not name or not name.isprintable() or len(name) > _MAX_NAME or name != name.strip():
        raise LocalProtocolError(f"{name!r} cannot be the name of a token: 1 to {_MAX_NAME} printable characters")
    if role not in ROLES:
        raise LocalProtocolError(f"{role!r} is not a role: {', '.join(ROLES)}")


def _read(path: str) -> tuple[Token, ...]:
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise UsbipError(f"{path} cannot be read: {error.strerror or error}: make it readable, or move it") from error
    if not raw:
        return ()
    try:
        tokens = tuple(_parsed(one) for one in json.loads(raw)["tokens"])
        if len({token.name for token in tokens}) < len(tokens):
            raise ValueError("two tokens have the same name")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is damaged: {error}: restore it, or remove it, and a new token is made"
        ) from error
    return tokens


def _parsed(one: dict[str, object]) -> Token:
    name, role, digest, created = one["name"], one["role"], one["sha256"], one["created"]
    if not isinstance(name, str) or not isinstance(role, str) or not isinstance(digest, str):
        raise ValueError("what should be text is not")
    _check(name, role)
    if len(bytes.fromhex(digest)) != hashlib.sha256().digest_size or not digest.isascii():
        raise ValueError(f"the hash of {name!r} is not one")
    return Token(name, role, digest.lower(), float(created) if isinstance(created, (int, float)) else 0.0)
