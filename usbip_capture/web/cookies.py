"""The cookie of a browser that has signed in: whose it is, signed with a key of this machine.

It outlives a restart of the server, and ends with the token that it was given for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time

from usbip_capture.errors import UsbipError
from usbip_capture.system.folder_lock import locked_folder
from usbip_capture.system.folders import configuration_folder
from usbip_capture.system.replacement import Replacement
from usbip_capture.web.tokens import Token, Tokens

#: Seconds that it is good for.
LIFETIME = 30 * 86400
_NAME = "web_key"
_KEY_SIZE = 32
#: Characters of one that is looked at: a name has 64 at most.
_LONGEST = 1024


def key_path() -> str:
    """Where the key is kept."""
    return os.path.join(configuration_folder(), _NAME)


class Cookies:
    """Makes and checks them. Raises UsbipError if the key can be neither read nor made."""

    def __init__(self, tokens: Tokens, path: str = "") -> None:
        self._tokens = tokens
        self._key = _key(path or key_path())

    def make(self, token: Token) -> str:
        """A cookie's value for who has this token."""
        payload = _encoded(json.dumps([token.name, int(time.time())]).encode())
        return f"{payload}.{self._signature(payload, token)}"

    def find(self, value: str) -> Token | None:
        """The token that this was made for; None if it was not made here, is too old, or its token is gone.

        Raises FileFormatError, UsbipError, as the tokens do.
        """
        payload, dot, signature = value[:_LONGEST].partition(".")
        try:
            name, made = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (ValueError, TypeError, RecursionError):
            return None
        token = self._tokens.named(name) if isinstance(name, str) else None
        if token is None or not dot or not signature.isascii():
            return None
        if not hmac.compare_digest(self._signature(payload, token), signature):
            return None
        return token if isinstance(made, int) and time.time() - made < LIFETIME else None

    def _signature(self, payload: str, token: Token) -> str:
        """Of one token: a later one of the same name is another."""
        message = f"{payload}.{token.sha256}".encode("utf-8", "surrogatepass")
        return _encoded(hmac.new(self._key, message, hashlib.sha256).digest())


def cookie_name(host: str) -> str:
    """Of one port: a browser sends cookies to all ports of a host. host: as the request has it."""
    port = host.rpartition(":")[2]
    return f"usbip_session_{port}" if port.isascii() and port.isdigit() else "usbip_session"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _key(path: str) -> bytes:
    try:
        with locked_folder(os.path.dirname(path)):
            key = _read(path)
            if len(key) != _KEY_SIZE:
                key = secrets.token_bytes(_KEY_SIZE)
                with Replacement(path) as file:
                    file.write(key)
    except OSError as error:
        raise UsbipError(f"{path} cannot be used: {error.strerror or error}: make its folder writable") from error
    return key


def _read(path: str) -> bytes:
    """Empty if it has to be made: there is none, or others could read it. Raises OSError."""
    try:
        if os.name == "posix" and os.stat(path).st_mode & 0o077:
            return b""
        with open(path, "rb") as file:
            return file.read(_KEY_SIZE + 1)
    except FileNotFoundError:
        return b""
