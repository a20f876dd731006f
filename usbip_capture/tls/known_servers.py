"""The servers whose certificates this user trusts, as ssh has `known_hosts`: a line each.

    pi:3241 SHA256:uU8... paired

paired: this user's certificate is known there, and is shown to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from usbip_capture.errors import FileFormatError, UsbipError
from usbip_capture.system.folder_lock import locked_folder
from usbip_capture.system.folders import configuration_folder
from usbip_capture.system.replacement import Replacement
from usbip_capture.tls.certificates import is_fingerprint

_PAIRED = "paired"
_HEAD = (
    "# USB/IP servers that are trusted: HOST:PORT, and the fingerprint of the certificate. See `usbip-capture trust`.\n"
)


class KnownServer(NamedTuple):
    """fingerprint: of its certificate. paired: whether it knows the certificate of this user."""

    fingerprint: str
    paired: bool = False


def known_servers_path() -> str:
    """The file, whether it exists or not."""
    return os.path.join(configuration_folder(), "known_tls_servers")


def known_servers() -> dict[tuple[str, int], KnownServer]:
    """By host, in small letters, and port. Raises FileFormatError, with the line, UsbipError."""
    path = known_servers_path()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsbipError(f"{path} cannot be read: {reason}: make it readable, or move it") from error
    if text and not text.endswith("\n"):
        raise FileFormatError(f"{path}: its last line is cut: correct it, or move the file")
    return dict(_entry(path, number, line) for number, line in enumerate(text.split("\n"), 1) if _counts(line))


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _entry(path: str, number: int, line: str) -> tuple[tuple[str, int], KnownServer]:
    words = line.split()
    host, _, port = words[0].rpartition(":")
    wrong = not host or not port.isdecimal() or len(words) not in (2, 3) or not is_fingerprint(words[1])
    if wrong or words[2:] not in ([], [_PAIRED]):
        raise FileFormatError(f"{path}, line {number}: it is not HOST:PORT FINGERPRINT: correct it, or remove the line")
    return (host, int(port)), KnownServer(words[1], len(words) == 3)


def remember(host: str, port: int, server: KnownServer | None) -> None:
    """Trust a server from now on, in place of what it was known by; None: not any more. Raises UsbipError."""
    _change(host, port, lambda known: server)


def trust(host: str, port: int, fingerprint: str) -> None:
    """Trust a certificate from now on; a server that is paired, and has it already, stays so. Raises UsbipError."""

    def trusted(known: KnownServer | None) -> KnownServer:
        return known if known is not None and known.fingerprint == fingerprint else KnownServer(fingerprint)

    _change(host, port, trusted)


def _change(host: str, port: int, changed: Callable[[KnownServer | None], KnownServer | None]) -> None:
    """What is known of a server; nobody else changes the file meanwhile. Raises UsbipError."""
    path = known_servers_path()
    try:
        with locked_folder(os.path.dirname(path)):
            servers = known_servers()
            server = changed(servers.pop((host.lower(), port), None))
            if server is not None:
                servers[host.lower(), port] = server
            _write(path, servers)
    except OSError as error:
        raise UsbipError(f"{path} cannot be written: {error.strerror or error}: make its folder writable") from error


def _write(path: str, servers: Mapping[tuple[str, int], KnownServer]) -> None:
    """Raises OSError."""
    lines = [f"{host}:{port} {one.fingerprint}{f' {_PAIRED}' * one.paired}\n" for (host, port), one in servers.items()]
    with Replacement(path) as file:
        file.write((_HEAD + "".join(lines)).encode())
