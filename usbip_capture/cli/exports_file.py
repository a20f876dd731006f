"""The exports in the configuration file, changed: comments and all else in it stay as they are.

The list may have several lines, with comments. What is made is read again before it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from usbip_capture.cli.configuration_text import read_text, write_text
from usbip_capture.errors import UsbipError
from usbip_capture.server.rules import ExportRule
from usbip_capture.servers.configuration import SERVER_TABLE
from usbip_capture.servers.server_table import parse_server_table

_KEY = "exports"
_HEADER = re.compile(r"[ \t]*\[[ \t]*([^\[\]]*?)[ \t]*\][ \t]*(#.*)?\r?")
_ENTRY = re.compile(rf"[ \t]*(?:{_KEY}|\"{_KEY}\")[ \t]*=[ \t]*")


class _Span(NamedTuple):
    """Of a string in the text, with its quotes."""

    start: int
    end: int


def add_exports(path: str, rules: Sequence[ExportRule]) -> list[ExportRule]:
    """Write those that are not there yet; these. Without rules: have the list, empty perhaps. Raises UsbipError."""
    text, known = _read(path)
    new = [rule for rule in dict.fromkeys(rules) if rule not in (known or ())]
    if new or known is None:
        made = _with(path, text, [json.dumps(str(rule), ensure_ascii=False) for rule in new])
        _write(path, made, [*(known or ()), *new])
    return new


def remove_exports(path: str, rules: Sequence[ExportRule]) -> list[ExportRule]:
    """Remove those that are there; these. Raises UsbipError."""
    text, known = _read(path)
    gone = [rule for rule in dict.fromkeys(rules) if rule in (known or ())]
    if gone and known is not None:
        at = _array(text)
        if at is None:
            raise _too_complex(path)
        spans, end = _strings(path, text, at)
        if len(spans) != len(known):
            raise _too_complex(path)
        for span, rule in reversed(list(zip(spans, known, strict=True))):
            if rule in gone:
                text = _without(text, span, at, end)
        _write(path, text, [rule for rule in known if rule not in gone])
    return gone


def _read(path: str) -> tuple[str, list[ExportRule] | None]:
    """The text, and its rules, None if it has no list of them. Raises UsbipError."""
    text = read_text(path)
    exports = parse_server_table(text.encode(), path).exports
    return text, None if exports is None else [ExportRule.parse(rule) for rule in exports]


def _with(path: str, text: str, items: list[str]) -> str:
    """With further strings in the list, which is made if there is none."""
    at = _array(text)
    if at is not None:
        return _extended(path, text, at, items)
    ending = "\r\n" if "\r\n" in text else "\n"
    entry = f"{_KEY} = [{', '.join(items)}]{ending}"
    header = _table(text)
    if header is not None:
        if not text[:header].endswith("\n"):
            entry = ending + entry
        return text[:header] + entry + text[header:]
    gap = "" if not text else ending if text.endswith("\n") else ending * 2
    return f"{text}{gap}[{SERVER_TABLE}]{ending}{entry}"


def _table(text: str) -> int | None:
    """Where the first line behind the table's header begins; None without a table."""
    at = 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        found = _HEADER.fullmatch(line.rstrip("\n"))
        if found is not None and found[1].strip("\"'") == SERVER_TABLE:
            return at
    return None


def _array(text: str) -> int | None:
    """Where the list begins, at its bracket; None if it is not there, or is not a list."""
    at = _table(text)
    for line in text[at:].splitlines(keepends=True) if at is not None else ():
        if at is None or _HEADER.fullmatch(line.rstrip("\n")):
            break
        found = _ENTRY.match(line)
        if found is not None:
            return at + found.end() if line[found.end() : found.end() + 1] == "[" else None
        at += len(line)
    return None


def _strings(path: str, text: str, at: int) -> tuple[list[_Span], int]:
    """The strings of the list that begins at `at`, and where it ends. Raises UsbipError."""
    spans: list[_Span] = []
    at += 1
    while at < len(text):
        if text[at] == "]":
            return spans, at
        if text[at] == "#":
            end = text.find("\n", at)
            if end < 0:
                break
            at = end
        elif text[at] in "\"'" and text[at : at + 3] not in ('"""', "'''"):
            end = _end_of_string(text, at)
            spans.append(_Span(at, end))
            at = end
        elif text[at] in ", \t\r\n":
            at += 1
        else:
            break
    raise _too_complex(path)


def _end_of_string(text: str, at: int) -> int:
    quote = text[at]
    at += 1
    while at < len(text) and text[at] != quote:
        at += 2 if text[at] == "\\" and quote == '"' else 1
    return at + 1


def _comma(text: str, at: int) -> int:
    """Where the comma is that follows a string; -1 if none does."""
    found = re.compile(r"(?:\s|#[^\n]*\n)*(,)").match(text, at)
    return found.start(1) if found is not None else -1


def _extended(path: str, text: str, at: int, items: list[str]) -> str:
    spans, end = _strings(path, text, at)
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


def _without(text: str, span: _Span, at: int, end: int) -> str:
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


def _write(path: str, text: str, expected: list[ExportRule]) -> None:
    """Raises UsbipError."""
    try:
        same = [ExportRule.parse(rule) for rule in parse_server_table(text.encode(), path).exports or ()] == expected
    except UsbipError:
        same = False
    if not same:
        raise _too_complex(path)
    write_text(path, text)


def _too_complex(path: str) -> UsbipError:
    return UsbipError(f'{path} has more than a plain list {_KEY} = ["..."] in [{SERVER_TABLE}]: edit it yourself')
