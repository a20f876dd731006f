"""Addresses of servers as people write them."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, and the errors where they are raised: Wireshark waits for this import
if TYPE_CHECKING:
    from usbip_capture.errors import LocalProtocolError

DEFAULT_PORT = 3240
#: Of a server of USB/IP over TLS.
TLS_PORT = 3241
#: How a server is reached: by TCP where its address names none of these.
TLS, SSH = "tls", "ssh"
#: How the dashboard of a server is reached, beside SSH; and its usual port.
HTTP, HTTPS = "http", "https"
WEB_PORT = 8080
#: What the name of a host has besides letters and digits, and that of a user: they become arguments of other programs.
_HOST, _USER = "-._:%", "-._+@"


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """`HOST`, `HOST:PORT`, `[IPv6]:PORT` or a bare IPv6 literal. Raises LocalProtocolError."""
    host, port = text.strip(), ""
    if host.startswith("["):
        host, closed, port = host[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise _error(f"{text!r} is not an address: write [IPv6]:PORT")
        port = port[1:]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    number = port.isascii() and port.isdigit()
    if not host or (port and not number) or (":" in host and not _is_ipv6(host)):
        raise _error(f"{text!r} is not an address: write HOST, HOST:PORT or [IPv6]:PORT")
    if number and (len(port) > 5 or int(port) > 65535):
        raise _error(f"{text!r}: {port} is not a TCP port (1 to 65535)")
    return host, int(port) if port else default_port


def parse_place(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """`parse_address`, also with a scheme, which then belongs to the host: `tls://pi`, `ssh://me@pi:2222`.

    `tls://HOST[:PORT]`; `ssh://[USER@]HOST[:SSH_PORT][/PORT]` with the port of the USB/IP server on that machine.
    """
    scheme, rest = _split_scheme(text.strip())
    if not scheme:
        return parse_address(text, default_port)
    where, _, own = rest.partition("/")
    user, _, where = where.rpartition("@")
    try:
        if (own or user) and scheme == TLS:
            raise ValueError(text)
        host, port = parse_address(where, 0)
        _, number = parse_address(f"x:{own}", default_port) if own else ("", default_port)
    except ValueError:
        host, port, number = "", 0, 0
    if not (_is_plain(host, _HOST) and (not user or _is_plain(user, _USER))) or (own and not number):
        raise _error(f"{text!r} is not an address: write tls://HOST[:PORT], or ssh://[USER@]HOST[:PORT OF SSH][/PORT]")
    bracketed = f"[{host}]" if ":" in host else host
    if scheme == TLS:
        return f"{TLS}://{bracketed}", port or (TLS_PORT if default_port == DEFAULT_PORT else default_port)
    before, after = f"{user}@" if user else "", f":{port}" if port else ""
    return f"{SSH}://{before}{bracketed}{after}", number


def split_place(host: str) -> tuple[str, str, str, int]:
    """Scheme, user, name and ssh's own port of a host that `parse_place` has made; nothing and 0 for what it lacks."""
    scheme, rest = _split_scheme(host)
    if not scheme:
        return "", "", host, 0
    user, _, where = rest.rpartition("@")
    return (scheme, user, *parse_address(where, 0))


def parse_dashboard(text: str, default_port: int = WEB_PORT) -> tuple[str, int]:
    """Where a dashboard is: its host, which has its scheme, and its port. Raises LocalProtocolError.

    `HOST[:PORT]`, `http://HOST[:PORT]`, `https://HOST[:PORT]`, or `ssh://[USER@]HOST[:SSH_PORT][/PORT]`.
    """
    scheme, colon, rest = text.strip().partition("://")
    if colon and scheme.lower() == SSH:
        return parse_place(text, default_port)
    scheme, rest = (scheme.lower(), rest) if colon else (HTTP, scheme)
    try:
        host, port = parse_address(rest.removesuffix("/"), default_port)
    except ValueError:
        host, port = "", 0
    if scheme not in (HTTP, HTTPS) or not _is_plain(host, _HOST) or not port:
        raise _error(
            f"{text!r} is not the address of a dashboard: write http://HOST[:PORT], https://HOST[:PORT] or "
            "ssh://[USER@]HOST[:PORT OF SSH][/PORT]"
        )
    return f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}", port


def is_dashboard(host: str) -> bool:
    """Whether `parse_dashboard` has made this host, and nobody else."""
    return host.startswith((f"{HTTP}://", f"{HTTPS}://"))


def usual_port(host: str) -> int:
    """The port of a host that `parse_place` has made, where none is given."""
    return TLS_PORT if host.startswith(f"{TLS}://") else DEFAULT_PORT


def _split_scheme(text: str) -> tuple[str, str]:
    scheme, colon, rest = text.partition("://")
    return (scheme.lower(), rest) if colon and scheme.lower() in (TLS, SSH) else ("", text)


def _is_plain(name: str, others: str) -> bool:
    return bool(name) and name[0] != "-" and all(c.isalnum() or c in others for c in name)


def _error(sentence: str) -> LocalProtocolError:
    from usbip_capture.errors import LocalProtocolError

    return LocalProtocolError(sentence)


def _is_ipv6(host: str) -> bool:
    import socket  # here, for it takes longer to import than what Wireshark's start needs of this module

    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def format_address(host: str, port: int) -> str:
    """Inverse of `parse_address` and `parse_place`; the default port is left out."""
    if port == usual_port(host):
        return host
    if "://" in host:
        return f"{host}/{port}" if host.startswith(SSH) else f"{host}:{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
