"""The rules of access in the configuration file, changed: comments and all else in it stay as they are.

Rules stand before the mode: a file of which the end is missing lets in nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from usbip_capture.access.rules import ALLOW, CLOSED, AccessRule
from usbip_capture.configuration.lists import ListInFile, end_of_list, entry, inserted, table
from usbip_capture.configuration.text import read_text, write_text
from usbip_capture.errors import UsbipError
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.ruling import rules_for
from usbip_capture.servers.configuration import SERVER_TABLE
from usbip_capture.servers.server_table import parse_server_table

_STRING = re.compile(r"\"[^\"\\\n]*\"|'[^'\n]*'")


def add_rules(path: str, rules: Sequence[AccessRule]) -> list[AccessRule]:
    """Write those that are not there yet; these. Raises UsbipError."""
    return ListInFile(path, "rules", AccessRule.parse).add(rules)


def remove_rules(path: str, rules: Sequence[AccessRule]) -> list[AccessRule]:
    """Remove those that are there, as rules or as networks of `allow`; these. Raises UsbipError."""
    gone = ListInFile(path, "rules", AccessRule.parse).remove(rules)
    networks = parse_server_table(read_text(path).encode(), path).allow
    short = {text: rules_for(parse_networks(text), ALLOW) for text in networks}
    texts = [text for text, meant in short.items() if set(meant) <= set(rules)]
    for text in ListInFile(path, "allow", str).remove(texts):
        gone += short[text]
    return list(dict.fromkeys(gone))


def set_mode(path: str, mode: str) -> bool:
    """Write the mode, `open` or `closed`; False if it was the same. Raises UsbipError."""
    text = read_text(path)
    before = parse_server_table(text.encode(), path)
    if before.access == mode:
        return False
    wanted = replace(before, access=mode, allow_public=before.allow_public and mode != CLOSED)
    try:
        made = _with_mode(text, mode)
        same = parse_server_table(made.encode(), path) == wanted
    except (UsbipError, ValueError):
        same = False
    if not same:
        raise UsbipError(
            f'{path} has more than access = "..." on a line of its own in [{SERVER_TABLE}]: edit it yourself'
        )
    write_text(path, made)
    return True


def _with_mode(text: str, mode: str) -> str:
    """Raises ValueError."""
    public = entry(text, "allow-public")
    if mode == CLOSED and public is not None:
        text = text[:public] + re.sub("^true", "false", text[public:])
    at = entry(text, "access")
    if at is None:
        behind = end_of_list(text, "rules")
        return inserted(text, f'access = "{mode}"', table(text) if behind is None else behind)
    found = _STRING.match(text, at)
    if found is None:
        raise ValueError
    return f'{text[:at]}"{mode}"{text[found.end() :]}'
