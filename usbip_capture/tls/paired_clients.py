"""The clients that a server was paired with: a name and a certificate each, in a file for its owner only."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from usbip_capture.errors import FileFormatError, LocalProtocolError, UsbipError
from usbip_capture.system.folder_lock import locked_folder
from usbip_capture.system.folders import configuration_folder
from usbip_capture.system.replacement import Replacement
from usbip_capture.tls.certificates import fingerprint
from usbip_capture.tls.pairing import NAME_TAKEN, PAIRED_ALREADY, PairingFailed, check_name


class PairedClient(NamedTuple):
    """certificate: in DER. since: when it was paired, seconds since 1970."""

    name: str
    certificate: bytes
    since: int

    @property
    def fingerprint(self) -> str:
        """Of its certificate."""
        return fingerprint(self.certificate)


def paired_clients_path() -> str:
    """The file, whether it exists or not."""
    return os.path.join(configuration_folder(), "paired_clients.json")


def read_paired_clients() -> dict[str, PairedClient]:
    """By name. Raises FileFormatError if the file is damaged, UsbipError if it cannot be read."""
    path = paired_clients_path()
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsbipError(f"{path} cannot be read: {error.strerror or error}: make it readable, or move it") from error
    try:
        entries = json.loads(raw)["clients"]
        found = {client.name: client for client in map(_client, entries)}
        if not isinstance(entries, list) or len(found) != len(entries):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        line = getattr(error, "lineno", 0)
        where = f"{path}, line {line}" if line else path
        raise FileFormatError(
            f"{where}: it does not hold the clients that were paired: restore it, or move it and pair them again"
        ) from error
    return found


def _client(entry: dict[str, object]) -> PairedClient:
    """Raises ValueError, KeyError, TypeError."""
    name, certificate, since = entry["name"], entry["certificate"], entry["since"]
    if not isinstance(name, str) or not isinstance(certificate, str) or type(since) is not int or not certificate:
        raise ValueError
    return PairedClient(check_name(name), base64.b64decode(certificate, validate=True), since)


def with_client(clients: Mapping[str, PairedClient], client: PairedClient) -> dict[str, PairedClient]:
    """These and one more, by name. Raises PairingFailed if another has its name, or it has another name."""
    known = clients.get(client.name)
    if known is not None and known.certificate != client.certificate:
        raise PairingFailed.of(NAME_TAKEN)
    if known is None and any(one.certificate == client.certificate for one in clients.values()):
        raise PairingFailed.of(PAIRED_ALREADY)
    return {**clients, client.name: client}


def remove_paired_client(name: str) -> PairedClient:
    """Raises LocalProtocolError if there is none of this name, UsbipError."""
    removed: list[PairedClient] = []

    def without(clients: dict[str, PairedClient]) -> dict[str, PairedClient]:
        if name not in clients:
            known = ", ".join(clients) or "none"
            raise LocalProtocolError(f"no client called {name!r} is paired: there is {known}")
        removed.append(clients.pop(name))
        return clients

    change_paired_clients(without)
    return removed[0]


def change_paired_clients(
    changed: Callable[[dict[str, PairedClient]], dict[str, PairedClient]],
) -> dict[str, PairedClient]:
    """Replace those that the file has by what `changed` makes of them; nobody else changes it meanwhile.

    Raises UsbipError, and what `changed` raises; the file is as it was then.
    """
    path = paired_clients_path()
    try:
        with locked_folder(os.path.dirname(path)):
            clients = changed(read_paired_clients())
            _write(path, clients)
    except OSError as error:
        raise UsbipError(f"{path} cannot be written: {error.strerror or error}: make its folder writable") from error
    return clients


def _write(path: str, clients: Mapping[str, PairedClient]) -> None:
    """Raises OSError."""
    entries = [
        {"name": one.name, "certificate": base64.b64encode(one.certificate).decode(), "since": one.since}
        for one in clients.values()
    ]
    with Replacement(path) as file:
        file.write(json.dumps({"clients": entries}, indent=1).encode() + b"\n")
