"""Values in the table `[server]` of the configuration file, changed: all else in it stays as it is.

What is made is read again before it is kept. Ref: TOML 1.0
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from usbip_capture.access.rules import CLOSED, AccessRules
from usbip_capture.configuration.places import end_of_value, entry, inserted, table
from usbip_capture.configuration.text import changing, read_text, write_text
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.server.rules import Rules
from usbip_capture.servers.configuration import SERVER_TABLE
from usbip_capture.servers.server_table import (
    ServerTable,
    parse_server_table,
    parse_tables,
    server_keys,
    server_value,
)

#: They stand behind the rules: a file of which the end is missing lets in nobody else.
_BEHIND_RULES = ("access", "allow", "allow-public")


def set_values(path: str, changes: Mapping[str, object]) -> list[str]:
    """Have these values from now on, None for what is not to be there any more; the keys whose values are others now.

    changes: keys as they are in the file, values as JSON has them. Who closes access ends allow-public as well.
    Raises LocalProtocolError for what cannot be meant, UsbipError; then nothing is changed.
    """
    wanted = {key: checked_value(key, value) for key, value in changes.items()}
    with changing(path):
        text = read_text(path)
        before = parse_server_table(text.encode(), path)
        if wanted.get("access") == CLOSED and before.allow_public:
            wanted.setdefault("allow-public", False)
        expected = replace(before, **{key.replace("-", "_"): value for key, value in wanted.items()})
        if expected.allow_public and expected.access == CLOSED:
            raise LocalProtocolError('allow-public contradicts access = "closed": choose one of them')
        given = {key for key, value in changes.items() if value is None}
        made = _made(path, text, {key: None if key in given else value for key, value in wanted.items()})
        _check_same(path, text, made, expected)
        if made != text:
            write_text(path, made)
    return [key for key in wanted if _of(expected, key) != _of(before, key)]


def checked_value(key: str, value: object) -> Any:
    """What a key is to be, as `ServerTable` has it: its default for None. Raises LocalProtocolError."""
    if value is None:
        keys = server_keys()
        return keys[key].default if key in keys else server_value(key, value)
    made = server_value(key, value)
    for text in made if isinstance(made, tuple) else (made,):
        if isinstance(text, str) and not text.isprintable():
            raise LocalProtocolError(f"{key}: {text!r} has characters that cannot be shown: choose another")
    if key == "exports" and isinstance(made, tuple):
        Rules(made)
    if key == "rules" and isinstance(made, tuple):
        AccessRules(CLOSED, made)
    return made


def _made(path: str, text: str, changes: Mapping[str, object]) -> str:
    """Raises UsbipError."""
    for key in sorted(changes, key=lambda key: key != "rules"):
        try:
            text = _without(text, key) if changes[key] is None else _with(text, key, _toml(changes[key]))
        except ValueError:
            raise _too_complex(path, key) from None
    return text


def _with(text: str, key: str, value: str) -> str:
    at = entry(text, key)
    if at is not None:
        return text[:at] + value + text[end_of_value(text, at) :]
    rules = entry(text, "rules") if key in _BEHIND_RULES else None
    where = table(text) if rules is None else _next_line(text, end_of_value(text, rules))
    return inserted(text, f"{key} = {value}", where)


def _without(text: str, key: str) -> str:
    """Without the key and its value; a comment behind them stays."""
    at = entry(text, key)
    if at is None:
        return text
    start, end = text.rfind("\n", 0, at) + 1, end_of_value(text, at)
    stop = _next_line(text, end)
    behind = text[end:stop].strip()
    if behind and not behind.startswith("#"):
        raise ValueError(behind)
    return text[:start] + (text[end:stop].lstrip(" \t") if behind else "") + text[stop:]


def _next_line(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _toml(value: object) -> str:
    """A bool, a number, a string or strings."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _check_same(path: str, text: str, made: str, expected: ServerTable) -> None:
    """Raises UsbipError if something else than what was to be changed would be another."""
    try:
        same = parse_server_table(made.encode(), path) == expected and _others(made, path) == _others(text, path)
    except UsbipError:
        same = False
    if not same:
        raise _too_complex(path)


def _others(text: str, path: str) -> dict[str, object]:
    tables = parse_tables(text.replace("\r\n", "\n"), path)
    return {name: value for name, value in tables.items() if name != SERVER_TABLE}


def _of(values: ServerTable, key: str) -> object:
    return getattr(values, key.replace("-", "_"))


def _too_complex(path: str, key: str = "") -> UsbipError:
    of_key = f" of {key}" if key else ""
    return UsbipError(f"{path} has more than plain values{of_key} in [{SERVER_TABLE}]: edit it yourself")
