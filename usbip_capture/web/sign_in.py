"""Who a request comes from: a token in its header, or the cookie of a browser that has signed in with one.

Ref: RFC 6750 (Bearer), RFC 7617 (Basic), RFC 6265 (cookies)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
import time
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.responses import Response

from usbip_capture.access.limits import TokenBuckets, key_of
from usbip_capture.net.listening import Peer
from usbip_capture.server.events import SIGN_IN_REFUSED, SIGNED_IN, Events
from usbip_capture.syslog.severity import NOTICE, WARNING
from usbip_capture.web.cookies import LIFETIME, Cookies, cookie_name
from usbip_capture.web.roles import Refused, User
from usbip_capture.web.tokens import Token, Tokens

#: Tokens that an address may try at once, and in a second; one that was right before is not counted.
_BURST, _RATE = 10, 1.0
#: Addresses and their tokens that are remembered as right.
_MAX_RIGHT = 1024
_SIGN_IN = "sign in: open the link that the server printed, or send a token as Authorization: Bearer TOKEN"


class SignIn:
    """Knows who asks, by `tokens` and `cookies`; reports to `events` who signs in and who is refused.

    clock: in seconds. Threads may share it.
    """

    def __init__(
        self, tokens: Tokens, cookies: Cookies, events: Events, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tokens = tokens
        self._cookies = cookies
        self._events = events
        self._clock = clock
        self._lock = threading.Lock()
        self._tries = TokenBuckets(_RATE, _BURST)
        self._right: dict[tuple[str, str], None] = {}  # the one that was used last is the last

    def authenticate(self, connection: HTTPConnection) -> User:
        """Who asks. Raises Refused, UsbipError."""
        given = presented(connection)
        if given is not None:
            return _user(self._checked(connection, given))
        value = connection.cookies.get(_cookie_of(connection))
        token = self._cookies.find(value) if value else None
        if token is None:
            raise Refused(_SIGN_IN, 401)
        return _user(token)

    def sign_in(self, connection: HTTPConnection, given: str, response: Response) -> User:
        """Have the browser that gets `response` signed in. Raises Refused, UsbipError."""
        token = self._checked(connection, given)
        response.set_cookie(
            _cookie_of(connection), self._cookies.make(token), max_age=LIFETIME, path="/",
            secure=connection.url.scheme in ("https", "wss"), httponly=True, samesite="strict",
        )  # fmt: skip
        self._events.emit(SIGNED_IN, NOTICE, peer=_peer(connection), text=token.name)
        return _user(token)

    def sign_out(self, connection: HTTPConnection, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(_cookie_of(connection), path="/", httponly=True, samesite="strict")

    def _checked(self, connection: HTTPConnection, given: str) -> Token:
        peer = _peer(connection)
        known = (key_of(peer.host), hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest())
        if not self._may_try(known):
            self._refuse(peer, "it tries too many tokens")
            raise Refused("too many tokens were tried from this address: wait a second", 429)
        token = self._tokens.find(given)
        with self._lock:
            self._right.pop(known, None)
            if token is not None:
                if len(self._right) >= _MAX_RIGHT:
                    del self._right[next(iter(self._right))]
                self._right[known] = None
        if token is None:
            self._refuse(peer, "its token is not known here")
            raise Refused("this token is not known here: it was removed, or belongs to another server", 401)
        return token

    def _may_try(self, known: tuple[str, str]) -> bool:
        """One that was right before is looked at in any case: who guesses keeps nobody else of the address out."""
        with self._lock:
            return known in self._right or self._tries.take(known[0], self._clock())

    def _refuse(self, peer: Peer, why: str) -> None:
        self._events.emit(SIGN_IN_REFUSED, WARNING, peer=peer, text=why)


def presented(connection: HTTPConnection) -> str | None:
    """The token in the header of a request, None without one. Raises Refused for a header that is something else."""
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            pass
    raise Refused("Authorization must be Bearer TOKEN, or Basic with a token as the password", 401)


def _user(token: Token) -> User:
    return User(token.name, token.role)


def _cookie_of(connection: HTTPConnection) -> str:
    return cookie_name(connection.headers.get("host", ""))


def _peer(connection: HTTPConnection) -> Peer:
    client = connection.client
    return Peer() if client is None else Peer(client.host.removeprefix("::ffff:"), client.port)
