"""Reads captures of any program: pcapng and classic pcap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.classic import MAGIC, read_classic
from usbip_capture.recordings.packed import packed_with
from usbip_capture.recordings.packets import MAX_PACKET, Interface, Packet, TakeRun
from usbip_capture.recordings.pcapng import SECTION, read_blocks
from usbip_capture.recordings.source import Source
from usbip_capture.recordings.stream import Stream

_LINE_ENDS = b"\r\n"


@dataclass(slots=True)
class Capture:
    """A capture that is being read: `interfaces` and their counts are those that were come to so far."""

    name: str
    interfaces: list[Interface]
    packets: Iterator[Packet]


@contextmanager
def open_capture(path: str | os.PathLike[str], take_run: TakeRun | None = None) -> Iterator[Capture]:
    """Open a capture; `-` is standard input, and gzip is unpacked. Its packets come in the order of the file.

    take_run: takes those that are not to be handed out, in the same order.
    Raises CaptureError if there is none; `packets` raises it where they cannot be read any further.
    """
    with Source(path) as source:
        interfaces: list[Interface] = []
        yield Capture(source.name, interfaces, read_packets(source, interfaces, take_run=take_run))


def read_packets(
    stream: Stream,
    interfaces: list[Interface] | None = None,
    *,
    max_packet: int = MAX_PACKET,
    take_run: TakeRun | None = None,
    take_records: TakeRun | None = None,
) -> Iterator[Packet]:
    """The packets of a capture, in the order of the file; its interfaces, of all sections, are added to `interfaces`.

    take_run, take_records: see `TakeRun`, of pcapng and of classic captures.
    A packet of more than `max_packet` bytes is damage: it is in memory as a whole.
    Raises CaptureError if it is not a capture; the iterator raises it where it cannot be read any further.
    """
    check_beginning(stream)
    if stream.magic in MAGIC:
        return read_classic(stream, interfaces, max_packet, take_records)
    return read_blocks(stream, interfaces, max_packet, take_run)


def check_beginning(stream: Stream) -> None:
    """Raises CaptureError if this does not begin as a capture does: before anything else is done."""
    name, magic = stream.name, stream.magic
    if not magic:
        raise CaptureError(f"{name} is empty")
    packed = packed_with(name, magic)
    if packed is not None:
        raise CaptureError(packed)
    if magic != SECTION and magic not in MAGIC:
        text = magic.decode("ascii", "replace")
        begins = f'"{text}"' if text.isascii() and text.isprintable() else magic.hex(" ")
        what = "give a pcapng or pcap file, gzip'ed or not"
        if len(magic) == len(SECTION) and not magic.strip(_LINE_ENDS):
            what = "its line ends were changed as those of a text are, transfer it in binary mode"
        raise CaptureError(f"{name} is not a capture, it begins with {begins}: {what}")


def first_link_type(stream: Stream) -> int | None:
    """That of the first packet, as far as it is at hand already; nothing is taken from `stream`."""
    portions = iter((stream.first,))
    try:
        return next(read_packets(Stream(stream.name, lambda: next(portions, b""))))[0].link_type
    except (StopIteration, CaptureError):
        return None
