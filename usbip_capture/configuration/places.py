"""Where the keys of the table `[server]` and their values are in the text of a configuration file.

Strings of several lines mislead it: who changes what is there reads it again before it is kept.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from usbip_capture.servers.configuration import SERVER_TABLE

_HEADER = re.compile(r"[ \t]*\[[ \t]*([^\[\]]*?)[ \t]*\][ \t]*(#.*)?\r?")
#: A number, true, false, or what else has neither quotes nor brackets.
_WORD = re.compile(r"[\w.+:-]+")


class Span(NamedTuple):
    """Of a string in the text, with its quotes."""

    start: int
    end: int


def inserted(text: str, line: str, at: int | None) -> str:
    """With one more line in the table, at `at`; None: with the table, too."""
    ending = "\r\n" if "\r\n" in text else "\n"
    line += ending
    if at is not None:
        if not text[:at].endswith("\n"):
            line = ending + line
        return text[:at] + line + text[at:]
    gap = "" if not text else ending if text.endswith("\n") else ending * 2
    return f"{text}{gap}[{SERVER_TABLE}]{ending}{line}"


def end_of_list(text: str, key: str) -> int | None:
    """Where the line behind a list begins; None without one. Raises ValueError."""
    at = entry(text, key)
    if at is None:
        return None
    _, end = strings(text, at)
    line_end = text.find("\n", end)
    return len(text) if line_end < 0 else line_end + 1


def table(text: str) -> int | None:
    """Where the first line behind the table's header begins; None without a table."""
    at = 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        found = _HEADER.fullmatch(line.rstrip("\n"))
        if found is not None and found[1].strip("\"'") == SERVER_TABLE:
            return at
    return None


def entry(text: str, key: str) -> int | None:
    """Where the value of a key in the table begins; None if it is not there."""
    at = table(text)
    for line in text[at:].splitlines(keepends=True) if at is not None else ():
        if at is None or _HEADER.fullmatch(line.rstrip("\n")):
            break
        found = re.match(rf"[ \t]*(?:{key}|\"{key}\")[ \t]*=[ \t]*", line)
        if found is not None:
            return at + found.end()
        at += len(line)
    return None


def strings(text: str, at: int) -> tuple[list[Span], int]:
    """The strings of the list that begins at `at`, and where it ends. Raises ValueError."""
    spans: list[Span] = []
    if text[at : at + 1] != "[":
        raise ValueError
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
            end = end_of_string(text, at)
            spans.append(Span(at, end))
            at = end
        elif text[at] in ", \t\r\n":
            at += 1
        else:
            break
    raise ValueError


def end_of_string(text: str, at: int) -> int:
    quote = text[at]
    at += 1
    while at < len(text) and text[at] != quote:
        at += 2 if text[at] == "\\" and quote == '"' else 1
    return at + 1


def end_of_value(text: str, at: int) -> int:
    """Where the value that begins at `at` ends. Raises ValueError if it is more than a string, a list or a word."""
    if text[at : at + 1] == "[":
        return strings(text, at)[1] + 1
    if text[at : at + 1] in ("'", '"'):
        if text[at : at + 3] in ('"""', "'''"):
            raise ValueError
        return end_of_string(text, at)
    found = _WORD.match(text, at)
    if found is None:
        raise ValueError
    return found.end()
