"""Servers written into, and taken out of, the configuration file: comments and all else in it stay as they are."""

from __future__ import annotations

from usbip_capture.configuration.text import changing, read_text, write_text
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.servers.configuration import (
    CONFIGURATION,
    SERVERS_TABLE,
    ConfiguredServer,
    configuration_path,
    is_bare,
    read_table,
    split_key,
    split_string,
)
from usbip_capture.system.shown import one_line


def add_server(name: str, address: str) -> str:
    """Have `name` mean `address` from now on; the name as it is in the file. Raises UsbipError."""
    server = ConfiguredServer(name, CONFIGURATION, name, address)
    if not name.strip() or not name.isprintable() or '"' in name or "\\" in name:
        raise LocalProtocolError(f'{name!r} cannot be a name: use printable characters other than " and \\')
    if server.problem:
        raise LocalProtocolError(f"{address!r} cannot be used for {name!r}: {server.problem}")
    with changing(configuration_path()):
        text = read_text(configuration_path())
        table = _table(text)
        known = _known(table, server.name)
        _write(_with(text, known or server.name, address), {**table, known or server.name: address})
    return known or server.name


def remove_server(name: str) -> str:
    """Forget a server; its name as it was in the file. Raises UsbipError."""
    with changing(configuration_path()):
        return _removed(name)


def _removed(name: str) -> str:
    text = read_text(configuration_path())
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
    try:
        same = read_table(text) == expected
    except ValueError:
        same = False
    if not same:
        raise _too_complex()
    write_text(configuration_path(), text)
