"""Reads captures of any program: pcapng and classic pcap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.classic import MAGIC, read_classic
from usbip_capture.recordings.packets import Interface, Packet
from usbip_capture.recordings.pcapng import SECTION, read_blocks
from usbip_capture.recordings.source import Source, open_source


@dataclass(slots=True)
class Capture:
    """A capture that is being read: `interfaces` and their counts are those that were come to so far."""

    name: str
    interfaces: list[Interface]
    packets: Iterator[Packet]


@contextmanager
def open_capture(path: str | os.PathLike[str]) -> Iterator[Capture]:
    """Open a capture; `-` is standard input, and gzip is unpacked. Its packets come in the order of the file.

    Raises CaptureError if there is none; `packets` raises it where they cannot be read any further.
    """
    with open_source(path) as source:
        interfaces: list[Interface] = []
        yield Capture(source.name, interfaces, _reader(source, interfaces))


def _reader(source: Source, interfaces: list[Interface]) -> Iterator[Packet]:
    if source.magic in MAGIC:
        return read_classic(source, interfaces)
    if source.magic == SECTION:
        return read_blocks(source, interfaces)
    text = source.magic.decode("ascii", "replace")
    begins = f'"{text}"' if text.isascii() and text.isprintable() else source.magic.hex(" ")
    what = "give a pcapng or pcap file, gzip'ed or not"
    raise CaptureError(f"{source.name} is not a capture, it begins with {begins}: {what}")
