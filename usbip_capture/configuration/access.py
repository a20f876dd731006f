"""The rules of access in the configuration file, changed: comments and all else in it stay as they are.

Rules stand before the mode: a file of which the end is missing lets in nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.access.rules import ALLOW, AccessRule
from usbip_capture.configuration.lists import ListInFile
from usbip_capture.configuration.text import read_text
from usbip_capture.configuration.values import set_values
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.ruling import rules_for
from usbip_capture.servers.server_table import parse_server_table


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
    return bool(set_values(path, {"access": mode}))
