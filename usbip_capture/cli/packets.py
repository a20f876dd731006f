"""Captured packets as lines of text, live: what `usbip-capture capture` prints when no file is named.

Ref: draft-ietf-opsawg-pcapng, 4.2 (interface description), 4.3 (enhanced packet), 3.5 (options)
"""

from __future__ import annotations

import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from usbip_capture.capture.sinks import Sink, StdoutSink, StreamSink
from usbip_capture.filters.language import ENUMERATION_LABEL
from usbip_capture.records.pcapng import LINKTYPE_USB_LINUX_MMAPPED
from usbip_capture.records.text import text_line
from usbip_capture.records.unlinks import unlink_comment
from usbip_capture.records.usbmon import HEADER_SIZE, SUBMIT, UsbmonRecord
from usbip_capture.usb.urb import DIR_IN, Buffer, TransferType

_INTERFACE, _ENHANCED_PACKET = 1, 6
_PACKET_HEAD = struct.Struct("<IIII")  # interface, time stamp high and low, captured length
_COMMENT = 1
_OURS = "usbip-capture: "
#: Comments of single URBs, which their lines show, or nobody needs to know.
_OF_URBS = (ENUMERATION_LABEL, unlink_comment(0).removesuffix("0"))
#: Isochronous reads whose length is remembered until they are completed.
_MAX_OPEN = 4096


class PacketLines(Sink):
    """Prints each packet: time of day, then usbmon's text line. Comments go to `on_comment`."""

    def __init__(self, on_comment: Callable[[str], None]) -> None:
        terminal = sys.stdout.isatty()
        self._to: Sink = StreamSink(sys.stdout.buffer, "standard output") if terminal else StdoutSink()
        super().__init__(self._to.name)
        self._on_comment = on_comment
        self._link_types: list[int] = []
        self._lengths: OrderedDict[int, int] = OrderedDict()

    def write(self, buffers: Sequence[Buffer]) -> None:
        lines = [line for kind, body in _blocks(b"".join(buffers)) for line in self._lines(kind, body)]
        if lines:
            self._to.write(["".join(f"{line}\n" for line in lines).encode()])
            self.written = self._to.written

    def close(self) -> None:
        self._to.close()

    def reader_gone(self) -> bool:
        return self._to.reader_gone()

    def abort(self) -> None:
        super().abort()
        self._to.abort()

    def _lines(self, kind: int, body: bytes) -> Iterator[str]:
        if kind == _INTERFACE:
            self._link_types.append(int.from_bytes(body[:2], "little"))
        if kind != _ENHANCED_PACKET:
            return
        interface, _, _, size = _PACKET_HEAD.unpack_from(body)
        data = body[20 : 20 + size]
        for comment in _comments(body[20 + (size + 3) // 4 * 4 :]):
            if comment.startswith(_OURS) and not comment.startswith(_OF_URBS):
                self._on_comment(comment.removeprefix(_OURS))
        if self._link_types[interface] == LINKTYPE_USB_LINUX_MMAPPED and size >= HEADER_SIZE:
            yield self._line(UsbmonRecord.parse(data))

    def _line(self, event: UsbmonRecord) -> str:
        length = event.length
        if event.xfer_type == TransferType.ISOCHRONOUS and event.epnum & DIR_IN:
            if event.type == SUBMIT:
                self._lengths[event.id] = length
                if len(self._lengths) > _MAX_OPEN:
                    self._lengths.popitem(last=False)
            else:
                length = self._lengths.pop(event.id, length)
        clock = time.strftime("%H:%M:%S", time.localtime(event.ts_sec))
        return f"{clock}.{event.ts_usec:06d} {text_line(event, length)}"


def _blocks(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 12 <= len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        yield kind, raw[at + 8 : at + size - 4]
        at += size


def _comments(options: bytes) -> Iterator[str]:
    at = 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from("<HH", options, at)
        if code == _COMMENT:
            yield options[at + 4 : at + 4 + size].decode("utf-8", "replace")
        at += 4 + (size + 3) // 4 * 4
