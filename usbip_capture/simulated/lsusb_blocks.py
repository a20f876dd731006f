"""The blocks of fields in the text of `lsusb -v`: what stands below each heading, with its line numbers.

Ref: usbutils, lsusb.c
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from usbip_capture.errors import FileFormatError
from usbip_capture.system.shown import one_line

DEVICE, CONFIGURATION = "Device Descriptor", "Configuration Descriptor"
#: Blocks whose lines are read strictly: what does not belong there is an error.
STRICT = (DEVICE, CONFIGURATION, "Interface Descriptor", "Interface Association", "Endpoint Descriptor",
          "HID Device Descriptor")  # fmt: skip

_FIELD = re.compile(
    r"((?:b|w|t|dw)\w*|id?[A-Z]\w*|MaxPower|MaxStreams|Mult)(?:\(\s*\d+\)|\[\s*\d+\])?(?:\s+(\S+)\s?(.*))?$"
)
_RAW = re.compile(r"\*\* UNRECOGNIZED:((?:\s+[0-9a-fA-F]{2})+)\s*$", re.ASCII)
_JUNK = re.compile(r"junk at descriptor end:((?:\s+[0-9a-fA-F]{2})+)\s*$", re.ASCII)
_BYTES = re.compile(r"[0-9a-fA-F]{2}(?: [0-9a-fA-F]{2})*$")
_REPORT = re.compile(r"Report Descriptor: \(length is (-?\d{1,6})\)")
_NEXT_DEVICE = re.compile(r"Bus \d+ Device \d+: ID ")
_SPEED = re.compile(r"Negotiated speed:\s*(.*)")


class Line(NamedTuple):
    """A field: where it stands, its name, its value, and what is printed after it."""

    number: int
    name: str
    value: str
    rest: str


@dataclass(slots=True)
class Report:
    """A report descriptor: its length as printed, and the lines of its items, or its bytes."""

    line: int
    length: int
    items: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Block:
    """What stands below one heading. raw: unrecognized descriptors that follow it, with their lines."""

    title: str
    line: int
    fields: list[Line] = field(default_factory=list)
    junk: bytes = b""
    raw: list[tuple[int, bytes]] = field(default_factory=list)
    report: Report | None = None


@dataclass(slots=True)
class Text:
    """The first device in a text. speed: its line, and what it was negotiated to be; empty if it is not printed."""

    blocks: list[Block] = field(default_factory=list)
    speed: tuple[int, str] = (0, "")


def failed(line: int, what: str) -> FileFormatError:
    """The error about a line of the text."""
    return FileFormatError(f"line {line}: {one_line(what[:200])}; that is not what `lsusb -v` prints")


def read_blocks(text: str) -> Text:
    """The blocks of the first device. Raises FileFormatError for a line that fits nowhere."""
    found = Text()
    indent = 0
    block: Block | None = None
    for number, content, depth in _lines(text):
        seen = any(each.title == DEVICE for each in found.blocks[:1])
        if seen and (_NEXT_DEVICE.match(content) or content == f"{DEVICE}:"):
            break
        if not found.blocks and (speed := _SPEED.match(content)):
            found.speed = number, speed[1].strip()
        elif _is_heading(content):
            block, indent = Block(content[:-1], number), -1
            # What stands before the device descriptor is about something else.
            if found.blocks or block.title in (DEVICE, CONFIGURATION):
                found.blocks.append(block)
        elif block is not None:
            indent = _add(block, number, content, depth, indent)
    return found


def _lines(text: str) -> Iterator[tuple[int, str, int]]:
    """Number, content and depth of each line that is not empty. Only line feeds end lines: strings hold anything."""
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if content:
            yield number, content, len(line) - len(line.lstrip())


def _is_heading(content: str) -> bool:
    if not content.endswith(":") or content.startswith(("**", "Warning:")) or _FIELD.match(content):
        return False
    return content != "Report Descriptors:"  # which are not available


def _add(block: Block, number: int, content: str, depth: int, indent: int) -> int:
    """Put a line where it belongs; the depth of the block's fields, as far as that is known."""
    if content.startswith("** UNRECOGNIZED"):
        raw = _RAW.match(content)
        if raw is None:
            raise failed(number, "the bytes of an unrecognized descriptor are not pairs of hexadecimal digits")
        block.raw.append((number, bytes.fromhex(raw[1])))
    elif junk := _JUNK.match(content):
        block.junk += bytes.fromhex(junk[1])
    elif report := _REPORT.match(content):
        block.report = Report(number, int(report[1]))
    elif block.report is not None and (content.startswith("Item(") or _BYTES.match(content)):
        block.report.items.append((number, content))
    elif found := _FIELD.match(content):
        return _add_field(block, Line(number, found[1], found[2] or "", found[3] or ""), depth, indent)
    return indent


def _add_field(block: Block, line: Line, depth: int, indent: int) -> int:
    indent = depth if indent < 0 else indent
    if depth == indent:
        block.fields.append(line)
    elif block.title in STRICT and not (block.report is not None and depth > indent):
        raise failed(line.number, f"{line.name} is indented otherwise than the fields of the {block.title} above")
    return indent
