"""The dashboard of one server: opened with it, closed before it."""

from __future__ import annotations

import hashlib
import logging
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.networks import is_loopback, listen_address
from usbip_capture.web.app import make_app
from usbip_capture.web.cookies import Cookies
from usbip_capture.web.event_feed import EventFeed
from usbip_capture.web.service import WebService
from usbip_capture.web.side import WebSide
from usbip_capture.web.sign_in import SignIn

if TYPE_CHECKING:
    from usbip_capture.servers.server_table import ServerTable
    from usbip_capture.serving.local_server import LocalServer
    from usbip_capture.tls.certificates import Identity

log = logging.getLogger(__name__)

#: Where it listens without a word about that.
DEFAULT_PORT = 8080
#: Who adds and removes tokens with a command on this machine, as events have it.
_BY_COMMAND = "user"


class Dashboard:
    """Serves the pages and interfaces of `server` as `settings` has it, until `close`.

    urls: where a browser of this machine finds it. link: the same with the first token, when that was made now; else
    empty. Raises LocalProtocolError, CannotListen, UsbipError.
    """

    def __init__(self, server: LocalServer, settings: ServerTable) -> None:
        places = [web_place(text) for text in settings.web]
        self._stack = ExitStack()
        with ExitStack() as opening:
            opening.callback(self.close)
            self.side = WebSide(server)
            self._stack.callback(self.side.start_figures().close)
            self._stack.callback(self.side.shared.close)  # after the service, when all have left
            sign_in = SignIn(self.side.tokens, Cookies(self.side.tokens), server.events)
            feed = EventFeed(server.events)
            self._stack.callback(feed.close)
            self.side.sign_in, self.side.feed = sign_in, feed
            own = _identity() if settings.web_tls else None
            app = make_app(self.side, sign_in.authenticate, host_names(settings))
            self._service = WebService(app, places, own.path if own else "")
            self._stack.callback(self._service.close)
            self._stack.callback(feed.close)  # before the service: streams end by themselves
            first = self.side.tokens.make_first()  # once nothing keeps its link from being shown
            opening.pop_all()
        self.urls = self._service.urls
        self.link = _link(self.urls[0], first) if first else ""
        self._report(own)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return self._service.addresses

    @property
    def is_secure(self) -> bool:
        """Whether it is reached by https."""
        return self._service.is_secure

    def listed_tokens(self) -> list[dict[str, object]]:
        """Names, roles, and when they were made, in seconds since 1970. Raises UsbipError."""
        return [{"name": one.name, "role": one.role, "created": one.created} for one in self.side.tokens.all()]

    def add_token(self, name: str, role: str) -> list[str]:
        """Links that sign in with a new one. Raises LocalProtocolError, UsbipError."""
        token = self.side.add_token(name, role, _BY_COMMAND)
        return [_link(url, token) for url in self.urls]

    def remove_token(self, name: str) -> None:
        """Whoever uses it is signed out. Raises UsbipError."""
        self.side.remove_token(name, _BY_COMMAND)

    def close(self) -> None:
        """End all requests. May be called again."""
        self._stack.close()

    def _report(self, own: Identity | None) -> None:
        for url in self.urls:
            log.info("the dashboard is at %s", url)
        if own is not None:  # as browsers show it
            log.info("the SHA-256 fingerprint of its certificate is %s", hashlib.sha256(own.certificate).hexdigest())
        if self.link:
            log.info("sign in to it with this link, which is shown only once: %s", self.link)
        beyond = [address for address, _ in self.addresses if not is_loopback(address)]
        if beyond and not self._service.is_secure:
            log.warning(
                "other machines can reach the dashboard, and tokens and what is captured travel in the clear: add "
                "--web-tls, or listen on 127.0.0.1 and come by `ssh -L`"
            )


def _link(url: str, token: str) -> str:
    return f"{url}?token={quote(token)}"


def web_place(text: str) -> tuple[str, int]:
    """Where to listen: ADDR:PORT, ADDR, `*`, :PORT or PORT. Raises LocalProtocolError."""
    if not text.strip():
        raise LocalProtocolError(f"{text!r} is not an address: write one such as 127.0.0.1:{DEFAULT_PORT}")
    address, port = listen_address(text, DEFAULT_PORT)
    return "" if address == "*" else address, port


def host_names(settings: ServerTable) -> list[str]:
    """By which the dashboard may be called, besides addresses and localhost."""
    own = socket.gethostname()
    return [own, f"{own.partition('.')[0]}.local", *settings.web_host]


def _identity() -> Identity:
    from usbip_capture.tls.certificates import SERVER, own_identity

    return own_identity(SERVER)
