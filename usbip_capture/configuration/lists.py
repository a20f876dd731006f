"""A list of strings in the table `[server]` of the configuration, changed: all else in it stays as it is.

The list may have several lines, with comments. What is made is read again before it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Generic, TypeVar

from usbip_capture.configuration.places import Span, entry, inserted, strings, table
from usbip_capture.configuration.text import changing, read_text, write_text
from usbip_capture.errors import UsbipError
from usbip_capture.servers.configuration import SERVER_TABLE
from usbip_capture.servers.server_table import ServerTable, parse_server_table

Item = TypeVar("Item")


class ListInFile(Generic[Item]):
    """The list `key`; parse: an item from its text, which `str` makes of it again. Its methods raise UsbipError."""

    def __init__(self, path: str, key: str, parse: Callable[[str], Item]) -> None:
        self._path = path
        self._key = key
        self._parse = parse

    def add(self, items: Sequence[Item]) -> list[Item]:
        """Write those that are not there yet; these. Without items: have the list, empty perhaps."""
        with changing(self._path):
            return self._added(items)

    def _added(self, items: Sequence[Item]) -> list[Item]:
        text, before, known = self._read()
        new = [item for item in dict.fromkeys(items) if item not in (known or ())]
        if new or known is None:
            try:
                made = self._with(text, [json.dumps(str(item), ensure_ascii=False) for item in new])
            except ValueError:
                raise self._too_complex() from None
            self._write(made, before, [*(known or ()), *new])
        return new

    def remove(self, items: Sequence[Item]) -> list[Item]:
        """Remove those that are there; these."""
        with changing(self._path):
            return self._removed(items)

    def _removed(self, items: Sequence[Item]) -> list[Item]:
        text, before, known = self._read()
        gone = [item for item in dict.fromkeys(items) if item in (known or ())]
        if gone and known is not None:
            try:
                made = self._without(text, [item in gone for item in known])
            except ValueError:
                raise self._too_complex() from None
            self._write(made, before, [item for item in known if item not in gone])
        return gone

    def _read(self) -> tuple[str, ServerTable, list[Item] | None]:
        text = read_text(self._path)
        found = parse_server_table(text.encode(), self._path)
        texts = getattr(found, self._key)
        # An empty list that has no other value than one which is not there is as good as none.
        return text, found, None if not texts and entry(text, self._key) is None else list(map(self._parse, texts))

    def _with(self, text: str, items: list[str]) -> str:
        """With further strings in the list, which is made if there is none. Raises ValueError."""
        at = entry(text, self._key)
        if at is not None:
            return _extended(text, at, items)
        return inserted(text, f"{self._key} = [{', '.join(items)}]", table(text))

    def _without(self, text: str, gone: list[bool]) -> str:
        at = entry(text, self._key)
        if at is None:
            raise ValueError
        spans, end = strings(text, at)
        for span, is_gone in reversed(list(zip(spans, gone, strict=True))):
            if is_gone:
                text = _without(text, span, at, end)
        return text

    def _write(self, text: str, before: ServerTable, expected: list[Item]) -> None:
        try:
            after = parse_server_table(text.encode(), self._path)
            found = list(map(self._parse, getattr(after, self._key) or ()))
        except UsbipError:
            raise self._too_complex() from None
        if found != expected or self._others(after) != self._others(before):
            raise self._too_complex()
        write_text(self._path, text)

    def _others(self, table: ServerTable) -> list[object]:
        """What a change of the list must leave alone."""
        return [getattr(table, field.name) for field in fields(table) if field.name != self._key]

    def _too_complex(self) -> UsbipError:
        return UsbipError(
            f'{self._path} has more than a plain list {self._key} = ["..."] in [{SERVER_TABLE}]: edit it yourself'
        )


def _comma(text: str, at: int) -> int:
    """Where the comma is that follows a string; -1 if none does."""
    found = re.compile(r"(?:\s|#[^\n]*\n)*(,)").match(text, at)
    return found.start(1) if found is not None else -1


def _extended(text: str, at: int, items: list[str]) -> str:
    spans, end = strings(text, at)
    if not spans:
        return text[: at + 1] + ", ".join(items) + text[at + 1 :]
    last = spans[-1]
    line_end = text.find("\n", last.end)
    line = text.rfind("\n", 0, last.start) + 1
    comma = _comma(text, last.end)
    if not 0 <= line_end < end or line <= at or text[line : last.start].strip() or comma > line_end:
        return text[: last.end] + "".join(f", {item}" for item in items) + text[last.end :]
    indent, ending = text[line : last.start], "\r\n" if text[line_end - 1] == "\r" else "\n"
    rest = text[last.end : line_end + 1]
    new = "".join(f"{indent}{item},{ending}" for item in items)
    return text[: last.end] + ("" if comma >= 0 else ",") + rest + new + text[line_end + 1 :]


def _without(text: str, span: Span, at: int, end: int) -> str:
    """Without a string, its comma, and its line if nothing else but a comment is there."""
    start, stop = span
    comma = _comma(text, stop)
    behind = re.match(r"[ \t]*,[ \t]*", text[stop:])
    if comma >= 0 and behind is None:  # on a later line
        text = text[:comma] + text[comma + 1 :]
    before = re.search(r",[ \t]*$", text[:start])
    line = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", stop)
    if behind is not None:
        stop += behind.end()
    elif before is not None and comma < 0:
        start = before.start()
    alone = not text[line:start].strip() and text[stop:line_end].strip()[:1] in ("", "#")
    if at < line and 0 <= line_end < end and alone:
        start, stop = line, line_end + 1
    return text[:start] + text[stop:]
