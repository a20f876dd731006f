"""The dashboard of a server by its name: where it is, by which token this user signs in, and what carries the bytes."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import (
    DEFAULT_PORT,
    HTTP,
    HTTPS,
    SSH,
    TLS,
    WEB_PORT,
    format_address,
    parse_address,
    parse_dashboard,
    parse_place,
    split_place,
)
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.servers.configuration import (
    TOKENS_TABLE,
    configuration_path,
    configured_dashboards,
    named,
    tokens,
)
from usbip_capture.servers.known import DASHBOARD, KnownServer, known_dashboards
from usbip_capture.system.shown import one_line

#: A token by environment.
TOKEN_VARIABLE = "USBIP_CAPTURE_TOKEN"
_SERVICE = "the dashboard of a server"
#: Where it listens on a machine that ssh reaches.
_LOOPBACK = "127.0.0.1"
#: What is spoken within TLS. Ref: RFC 7301
_ALPN = "http/1.1"


@dataclass(slots=True, frozen=True)
class Dashboard:
    """The dashboard of a server of ours. scheme: http, https, or ssh, which reaches its port on loopback over there.

    name: as the user has called it, empty if it is an address. token: by which he signs in. timeout: seconds to
    connect, and for each answer. user, ssh_port: of ssh; nothing and 0 as ssh is configured.
    """

    host: str
    port: int = WEB_PORT
    scheme: str = HTTP
    user: str = ""
    ssh_port: int = 0
    name: str = ""
    token: str = ""
    timeout: float = 5.0

    @classmethod
    def parse(cls, text: str, port: int = DEFAULT_PORT, token: str = "", timeout: float = 5.0) -> Dashboard:
        """From a name in the configuration, that of an announced server, or an address of `parse_dashboard`.

        port: where it is not the usual one of USB/IP, that of the dashboard, if `text` has none. Raises UsbipError.
        """
        text = text.strip()
        if not text:
            raise LocalProtocolError("no server given: give the name or address of its dashboard, such as pi:8080")
        name, place = _place_of(text, WEB_PORT if port == DEFAULT_PORT else port)
        return cls.at(*place, name=name, token=token or os.environ.get(TOKEN_VARIABLE, ""), timeout=timeout)

    @classmethod
    def at(cls, host: str, port: int, *, name: str = "", token: str = "", timeout: float = 5.0) -> Dashboard:
        """Of a host with its scheme, as `parse_dashboard` makes it; name: as configured. Raises UsbipError."""
        scheme, _, rest = host.partition("://")
        user, plain, ssh_port = "", parse_address(rest, 0)[0] if scheme != SSH else "", 0
        if scheme == SSH:
            _, user, plain, ssh_port = split_place(host)
        token = token.strip() or _configured_token(name, format_address(host, port))
        if not token.isascii() or not token.isprintable() or " " in token:
            raise LocalProtocolError("the token has characters that no token has: copy it again")
        return cls(plain, port, scheme, user, ssh_port, name, token, timeout)

    @classmethod
    def known(cls, server: KnownServer, token: str = "", timeout: float = 5.0) -> Dashboard:
        """Of one that is known. Raises UsbipError."""
        # A token that is configured for a name is not for a server that anybody may have announced.
        name = server.name if server.source == DASHBOARD else ""
        return cls.at(server.host, server.port, name=name, token=token, timeout=timeout)

    @classmethod
    def of_server(cls, host: str, token: str = "", timeout: float = 5.0) -> Dashboard:
        """At the usual port of the server that a stranger calls `host`. Raises UsbipError."""
        server = named(host)
        # A name is what this user has called so; a token by environment is not for any other address.
        return cls.at(*_dashboard_at(server[0] if server else parse_place(host)[0], WEB_PORT), token=token,
                      name=host if server else "", timeout=timeout)  # fmt: skip

    def __str__(self) -> str:
        return one_line(self.name) if self.name else self.address

    @property
    def address(self) -> str:
        """As `parse` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.scheme != SSH:
            return f"{self.scheme}://{host}:{self.port}"
        user, ssh_port = f"{self.user}@" if self.user else "", f":{self.ssh_port}" if self.ssh_port else ""
        return f"{SSH}://{user}{host}{ssh_port}/{self.port}"

    @property
    def host_header(self) -> str:
        """By which it is called in a request. Ref: RFC 9110, 7.2"""
        host = _LOOPBACK if self.scheme == SSH else self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def open_transport(self) -> Transport:
        """A new connection to it. Raises UsbipError: not reachable, or its certificate is not trusted."""
        if self.scheme == SSH:
            from usbip_capture.net.ssh import open_ssh

            return open_ssh(self.host, self.port, self.timeout, user=self.user, ssh_port=self.ssh_port)
        if self.scheme == HTTPS:
            return self._open_tls()
        from usbip_capture.net.connecting import connect

        return SocketTransport(connect(self.host, self.port, self.timeout, _SERVICE), str(self))

    def _open_tls(self) -> Transport:
        """Trusted as by `tls://`, also where that has another port and the same certificate."""
        from usbip_capture.tls.client import check, known_at, open_tls, same_certificate

        transport = open_tls(self.host, self.port, self.timeout, protocol=_ALPN)
        try:
            known, others = known_at(self.host, self.port)
            known = known or same_certificate(transport.certificate, others)
            check(self.host, self.port, transport.certificate, known)
        except BaseException:
            transport.close()
            raise
        return transport


def _place_of(text: str, port: int) -> tuple[str, tuple[str, int]]:
    """The configured name, empty if there is none, and the place. Raises LocalProtocolError."""
    wanted = text.lower()
    for name, host, own_port in configured_dashboards():
        if name.lower() == wanted:
            return name, (host, own_port)
    server = named(text)
    if server is not None:
        return text, _dashboard_at(server[0], port)
    # Anybody may announce any name: a token that is configured for a name is not sent there.
    for known in known_dashboards():
        if known.name.lower() == wanted:
            return "", (known.host, known.port)
    return "", parse_dashboard(text, port)


def _dashboard_at(host: str, port: int) -> tuple[str, int]:
    """That of a server, as `parse_place` has its host."""
    scheme, _, plain, _ = split_place(host)
    if scheme == SSH:
        return host, port
    bracketed = f"[{plain}]" if ":" in plain else plain
    return f"{HTTPS if scheme == TLS else HTTP}://{bracketed}", port


def _configured_token(name: str, address: str) -> str:
    """That of the configuration file, by the name or the address. Raises UsbipError."""
    found = tokens()
    wanted = {name.lower(), address.lower()} - {""}
    token = next((value for key, value in found.items() if key.lower().rstrip("/") in wanted), "").strip()
    path = configuration_path()
    if token and os.name != "nt" and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise UsbipError(f"{path} has tokens, and others may read it: run chmod 600 on it")
    if not token:
        raise UsbipError(
            f"no token is known for {name or address}: give --token, set {TOKEN_VARIABLE}, or write it under "
            f"[{TOKENS_TABLE}] in {path}; `usbip-capture token NAME` makes one where the server runs"
        )
    return token
