"""What every request has to pass before it is looked at, and what every answer has for the browser to obey.

A page of another site must not reach this server through the browser of somebody who is signed in: neither by a name
that leads here (DNS rebinding), nor by a request or a WebSocket that carries the cookie along.

Ref: RFC 9110, 7.2 (Host); RFC 6454 (Origin); RFC 6455, 10.2; W3C Content Security Policy 3; Fetch (Sec-Fetch-Site)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

#: Requests that change nothing.
_SAFE = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=(), hid=()",
}
_LOCAL_NAMES = ("localhost",)


class Guard:
    """Passes to `app` what is meant for this server and does not come from another site's page; 403 for the rest.

    names: of this server, besides addresses and localhost.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in (*_LOCAL_NAMES, *names) if name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        why = self._refusal(scope)
        if not why:
            await self._app(scope, receive, _with_headers(send, scope["path"]))
            return
        response = JSONResponse({"ok": False, "error": why}, 403)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, _with_headers(send, scope["path"]))

    def _refusal(self, scope: Scope) -> str:
        """Why it does not pass; empty if it does."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else ""
        if not self._is_ours(name):
            return f"this server does not answer to the name {name or 'that was sent'}: add it with --web-host"
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return ""
        origins = headers.getlist("origin")
        if not origins:
            return _without_origin(HTTPConnection(scope))
        secure = scope["scheme"] in ("https", "wss")
        if len(origins) == 1 and is_same(origins[0], hosts[0], secure=secure):
            return ""
        return "the request comes from a page of another site"

    def _is_ours(self, name: str) -> bool:
        """An address cannot be made to lead elsewhere, so that any is fine; a name can."""
        if not name:
            return False
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return name in self._names
        return True


def host_name(host: str) -> str:
    """The name or address in a Host header, in lower case, without its port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  raises for what is not one
    except ValueError:
        return ""
    if parts.path or parts.query or parts.fragment or parts.username is not None or any(c.isspace() for c in host):
        return ""
    return (parts.hostname or "").lower().rstrip(".")


def is_same(origin: str, host: str, *, secure: bool) -> bool:
    """Whether a page of this origin is one of this host. secure: this server speaks TLS itself, its pages are https."""
    scheme, _, rest = origin.lower().partition("://")
    if scheme not in (("https",) if secure else ("http", "https")):
        return False  # without TLS, a proxy in front may have it
    wanted = _with_port(host.lower(), scheme)
    return bool(wanted[0]) and _with_port(rest, scheme) == wanted


def _with_port(host: str, scheme: str) -> tuple[str, int | None]:
    try:
        port = urlsplit(f"//{host}").port
    except ValueError:
        return "", -1
    return host_name(host), port or (443 if scheme == "https" else 80)


def _without_origin(connection: HTTPConnection) -> str:
    """Browsers name the origin of all that is not GET or HEAD, programs do not; those send no cookies."""
    site = connection.headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin"):
        return "the request comes from a page of another site"
    if connection.cookies and "authorization" not in connection.headers:
        return "a request with a cookie must have the header Origin; programs send Authorization: Bearer TOKEN instead"
    return ""


def _with_headers(send: Send, path: str) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            if path.startswith("/api/") or "set-cookie" in headers:
                headers.setdefault("cache-control", "no-store")
        await send(message)

    return with_headers
