"""The exports in the configuration file, changed: comments and all else in it stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.configuration.lists import ListInFile
from usbip_capture.server.rules import ExportRule


def add_exports(path: str, rules: Sequence[ExportRule]) -> list[ExportRule]:
    """Write those that are not there yet; these. Without rules: have the list, empty perhaps. Raises UsbipError."""
    return ListInFile(path, "exports", ExportRule.parse).add(rules)


def remove_exports(path: str, rules: Sequence[ExportRule]) -> list[ExportRule]:
    """Remove those that are there; these. Raises UsbipError."""
    return ListInFile(path, "exports", ExportRule.parse).remove(rules)
