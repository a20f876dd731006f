"""Servers written into, and taken out of, the configuration file: comments and all else in it stay as they are."""

from __future__ import annotations

import os

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.servers.configuration import (
    CONFIGURATION,
    MAX_BYTES,
    SERVERS_TABLE,
    ConfiguredServer,
    configuration_path,
    is_bare,
    read_bytes,
    read_table,
    split_key,
    split_string,
)
from usbip_capture.system.replacement import Replacement
from usbip_capture.system.shown import one_line


def add_server(name: str, address: str) -> str:
    """Have `name` mean `address` from now on; the name as it is in the file. Raises UsbipError."""
    server = ConfiguredServer(name, CONFIGURATION, name, address)
    if not name.strip() or not name.isprintable() or '"' in name or "\\" in name:
        raise LocalProtocolError(f'{name!r} cannot be a name: use printable characters other than " and \\')
    if server.problem:
        raise LocalProtocolError(f"{address!r} cannot be used for {name!r}: {server.problem}")
    text = _text()
    table = _table(text)
    known = _known(table, server.name)
    _write(_with(text, known or server.name, address), {**table, known or server.name: address})
    return known or server.name


def remove_server(name: str) -> str:
    """Forget a server; its name as it was in the file. Raises UsbipError."""
    text = _text()
    table = _table(text)
    known = _known(table, name)
    if known is None:
        there = f": there are {', '.join(map(one_line, table))}" if table else ": it names none"
        raise UsbipError(f"{configuration_path()} does not name a server {name!r}{there}")
    lines = text.split("\n")
    at = _entries(lines)[0].get(known)
    if at is None:
        raise _too_complex()
    del lines[at]
    _write("\n".join(lines), {other: address for other, address in table.items() if other != known})
    return known


def _with(text: str, name: str, address: str) -> str:
    lines = text.split("\n")
    entries, end = _entries(lines)
    if name in entries:
        line = lines[entries[name]]
        _, rest = split_key(line.lstrip(" \t"))
        old, tail = split_string(rest)
        if old is None:
            raise _too_complex()
        lines[entries[name]] = f'{line[: len(line) - len(rest)]}"{address}"{tail}'
        return "\n".join(lines)
    ending = "\r" if any(line.endswith("\r") for line in lines) else ""
    entry = f'{name if is_bare(name) else f"{chr(34)}{name}{chr(34)}"} = "{address}"{ending}'
    if end is not None:
        lines.insert(end, entry)
        return "\n".join(lines)
    before = [] if lines == [""] else [*lines[: None if lines[-1] else -1], ending]
    return "\n".join([*before, f"[{SERVERS_TABLE}]{ending}", entry, ""])


def _entries(lines: list[str]) -> tuple[dict[str, int], int | None]:
    """The line of each entry, and where a further one goes, None without a table. Strings of several lines mislead it:
    what is made of this is read again before it is kept."""
    found: dict[str, int] = {}
    end = None
    inside = False
    for at, line in enumerate(lines):
        line = line.strip(" \t\r")
        if line.startswith("["):
            inside = line.partition("#")[0].rstrip() == f"[{SERVERS_TABLE}]"
        if inside and line and line[0] not in "#[":
            name, _ = split_key(line)
            if name is not None:
                found[name] = at
        if inside and line:
            end = at + 1
    return found, end


def _known(table: dict[str, object], name: str) -> str | None:
    """The name in the file that is meant, however its letters are written."""
    return next((known for known in table if known.lower() == name.strip().lower()), None)


def _text() -> str:
    path = configuration_path()
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsbipError(f"{path} is not a file: move it")
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise UsbipError(f"{path} cannot be read: {error.strerror or error}: make it readable, or move it") from error
    if len(raw) >= MAX_BYTES:
        raise UsbipError(f"{path} is too long for a configuration: at most {MAX_BYTES} bytes are read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsbipError(f"{path} is not UTF-8: {error}: correct it first") from error


def _table(text: str) -> dict[str, object]:
    try:
        return read_table(text)
    except ImportError as error:
        raise UsbipError("Python 3.10 needs the package tomli to read this file: pip install tomli") from error
    except ValueError as error:
        raise UsbipError(f"{configuration_path()} is not valid TOML: {error}: correct it first") from error


def _too_complex() -> UsbipError:
    return UsbipError(f"{configuration_path()} holds more than a plain line for each server: edit it yourself")


def _write(text: str, expected: dict[str, object]) -> None:
    path = configuration_path()
    try:
        same = read_table(text) == expected
    except ValueError:
        same = False
    if not same:
        raise _too_complex()
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with Replacement(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsbipError(f"{path} cannot be written: {error.strerror or error}: make its folder writable") from error
