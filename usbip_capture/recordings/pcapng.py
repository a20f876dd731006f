"""pcapng files, read block by block: a million packets a second matter here, so that it is not left to a library.

Ref: IETF draft-ietf-opsawg-pcapng, sections 3 and 4
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from usbip_capture.recordings.packets import (
    END_OF_TIME,
    MAX_BLOCK,
    MAX_COMMENT_TEXT,
    MAX_INTERFACES,
    MAX_TEXT,
    NANOSECONDS,
    CutOff,
    Damaged,
    Interface,
    Packet,
    TakeRun,
)
from usbip_capture.recordings.stream import Stream

SECTION = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}

_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE_PACKET = 3
_STATISTICS = 5
_PACKET = 6
_SECTION = 0x0A0D0D0A
_READ = (_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _STATISTICS, _PACKET)
# Bytes of a block without its body: type and length before, length after.
_FRAME = 12
# From the beginning of the block: where the data of a packet lies, or the options of another.
_DATA_AT = 28
_SIMPLE_DATA_AT = 12
_INTERFACE_OPTIONS_AT = 16
_STATISTICS_OPTIONS_AT = 20
# What a block that is read may have beside a packet.
_BESIDE_PACKET = 1 << 20
_MAX_COMMENTS = 64
_NONE: list[str] = []

_OPT_COMMENT = 1
_IF_NAME = 2
_IF_DESCRIPTION = 3
_IF_TSRESOL = 9
_IF_TSOFFSET = 14
_ISB_IFRECV = 4
_ISB_IFDROP = 5


class _Layout:
    """The fields of one byte order."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.head = Struct(order + "II").unpack_from
        self.packet = Struct(order + "8xIIIII").unpack_from  # interface, time high and low, captured, original
        self.old_packet = Struct(order + "8xH2xIIII").unpack_from  # the same, drops left out
        self.last = Struct(order + "I").unpack_from  # total length
        self.number = Struct(order + "8xI").unpack_from  # original length, or interface
        self.described = Struct(order + "8xH2xI").unpack_from  # link type, snaplen
        self.option = Struct(order + "HH").unpack_from
        self.signed = Struct(order + "q").unpack
        self.unsigned = Struct(order + "Q").unpack


_LAYOUTS = {order: _Layout(order) for order in "<>"}


def read_blocks(
    stream: Stream, interfaces: list[Interface] | None, max_packet: int, take_run: TakeRun | None = None
) -> Iterator[Packet]:
    """The packets of a file that begins with SECTION; its interfaces, those of all sections, are added to `interfaces`.

    take_run: takes those that are not to be handed out, see `TakeRun`.

    Raises CaptureError where it cannot be read any further.
    """
    return _Reader(stream, interfaces, max_packet, take_run).packets()


class _Reader:
    """What the blocks so far define for those that follow."""

    def __init__(
        self, stream: Stream, interfaces: list[Interface] | None, max_packet: int, take_run: TakeRun | None
    ) -> None:
        self._stream = stream
        self._interfaces = interfaces
        self._take_run = take_run
        self._max_block = max_packet + _BESIDE_PACKET
        self._section: list[Interface] = []
        self._layout = _LAYOUTS["<"]
        self._comment_text = 0
        self._last_ns = 0

    def packets(self) -> Iterator[Packet]:
        layout, max_block, takes = self._layout, self._max_block, self._take_run is not None
        buffer, at = self._stream.first, 0
        have = len(buffer)
        while True:
            if takes:
                at = self._taken(buffer, at)
            if have - at < _FRAME:
                buffer, at = self._more(buffer, at, _FRAME), 0
                if not (have := len(buffer)):
                    return
            kind, size = layout.head(buffer, at)
            if kind == _SECTION:
                layout = self._begin_section(buffer, at)
                kind, size = layout.head(buffer, at)
            end = at + size
            if size < _FRAME or size & 3 or size > max_block or end > have:
                self._check_size(kind, size, buffer, at)
                if end > have:
                    buffer, at = self._whole(kind, size, buffer, at)
                    have, end = len(buffer), size
                    if kind not in _READ:
                        continue
            if buffer[end - 4 : end] != buffer[at + 4 : at + 8]:
                raise self._damaged(buffer, at, "a block that ends otherwise than it begins")
            if kind != _PACKET:
                yield from self._other(kind, buffer, at, end)
                at = end
                continue
            if size < _DATA_AT + 4:
                raise self._damaged(buffer, at, "a packet without its head")
            number, high, low, captured, original = layout.packet(buffer, at)
            start = at + _DATA_AT
            stop = start + captured
            # Comments come after the data, and their end with them.
            comments = _NONE if end - stop < 12 else self._comments(buffer, stop + (-captured & 3), end - 4)
            if stop > end - 4 or number >= len(self._section):
                self._checked(number, stop, buffer, at, end)
            interface = self._section[number]
            # As `_time`, without its call.
            time_ns = (high << 32 | low) * interface.multiplier // interface.divisor + interface.offset_ns
            self._last_ns = time_ns = time_ns if 0 <= time_ns < END_OF_TIME else 0
            yield interface, time_ns, buffer, start, stop, original - captured, comments
            at = end

    def _taken(self, buffer: bytes, at: int) -> int:
        """Where the run of packets ends that somebody takes who need not have them one by one."""
        take, layout = self._take_run, self._layout
        if take is None or layout.order != "<" or len(buffer) - at < _FRAME or layout.head(buffer, at)[0] != _PACKET:
            return at
        end = take(buffer, at, self._section)
        if end > at:
            last = end - layout.last(buffer, end - 4)[0]
            number, high, low, _, _ = layout.packet(buffer, last)
            self._time(self._section[number], high, low)
        return end

    def _begin_section(self, buffer: bytes, at: int) -> _Layout:
        order = _ORDERS.get(buffer[at + 8 : at + 12])
        if order is None:
            raise self._damaged(buffer, at, "a section without a byte order")
        self._layout = _LAYOUTS[order]
        return self._layout

    def _more(self, buffer: bytes, at: int, size: int) -> bytes:
        """`buffer` from `at` on, so long at least; empty if the capture ends there. Raises CutOff if it ends later."""
        buffer = self._stream.more(buffer[at:], size)
        if buffer and len(buffer) < size:
            raise self._cut_off()
        return buffer

    def _check_size(self, kind: int, size: int, buffer: bytes, at: int) -> None:
        most = self._max_block if kind in _READ else MAX_BLOCK
        if size < _FRAME or size & 3 or size > most:
            raise self._damaged(buffer, at, f"a block of {size} bytes")

    def _whole(self, kind: int, size: int, buffer: bytes, at: int) -> tuple[bytes, int]:
        """A block as a whole, or what follows it if nobody reads it; and where that begins."""
        if kind in _READ:
            return self._more(buffer, at, size), 0
        rest = self._stream.skip(size - (len(buffer) - at))
        if rest is None:
            raise self._cut_off()
        return rest, 0

    def _other(self, kind: int, buffer: bytes, at: int, end: int) -> Iterator[Packet]:
        """Any block but an enhanced packet; those that nobody knows are passed over."""
        if kind == _SECTION:
            self._section = []
        elif kind == _INTERFACE:
            self._describe(buffer, at, end)
        elif kind == _STATISTICS:
            self._count(buffer, at, end)
        elif kind == _OLD_PACKET:
            yield self._old_packet(buffer, at, end)
        elif kind == _SIMPLE_PACKET:
            yield self._simple_packet(buffer, at, end)

    def _describe(self, buffer: bytes, at: int, end: int) -> None:
        known = self._section if self._interfaces is None else self._interfaces
        if end - at < _INTERFACE_OPTIONS_AT + 4 or len(known) >= MAX_INTERFACES:
            raise self._damaged(buffer, at, "an interface description that is too short, or one too many")
        link_type, snaplen = self._layout.described(buffer, at)
        found = Interface(link_type, self._layout.order, 1000, 1, snaplen=snaplen)
        for code, value in self._options(buffer, at + _INTERFACE_OPTIONS_AT, end - 4):
            if code == _IF_NAME:
                found.name = _text(value)
            elif code == _IF_DESCRIPTION:
                found.description = _text(value)
            elif code == _IF_TSRESOL and value:
                exponent = value[0] & 0x7F
                found.multiplier, found.divisor = NANOSECONDS, (2 if value[0] & 0x80 else 10) ** exponent
            elif code == _IF_TSOFFSET and len(value) == 8:
                found.offset_ns = self._layout.signed(value)[0] * NANOSECONDS
        if found.multiplier % found.divisor == 0:
            found.multiplier, found.divisor = found.multiplier // found.divisor, 1
        self._section.append(found)
        if self._interfaces is not None:
            self._interfaces.append(found)

    def _count(self, buffer: bytes, at: int, end: int) -> None:
        if end - at < _STATISTICS_OPTIONS_AT + 4:
            raise self._damaged(buffer, at, "an interface's counts that are too short")
        (number,) = self._layout.number(buffer, at)
        interface = self._numbered(number, buffer, at)
        for code, value in self._options(buffer, at + _STATISTICS_OPTIONS_AT, end - 4):
            if code == _OPT_COMMENT and len(interface.comments) < _MAX_COMMENTS:
                comment = _text(value)
                if self._comment_text + len(comment) <= MAX_COMMENT_TEXT:
                    self._comment_text += len(comment)
                    interface.comments.append(comment)
            elif code == _ISB_IFRECV and len(value) == 8:
                interface.received = self._layout.unsigned(value)[0]
            elif code == _ISB_IFDROP and len(value) == 8:
                interface.dropped = self._layout.unsigned(value)[0]

    def _old_packet(self, buffer: bytes, at: int, end: int) -> Packet:
        if end - at < _DATA_AT + 4:
            raise self._damaged(buffer, at, "a packet without its head")
        number, high, low, captured, original = self._layout.old_packet(buffer, at)
        start = at + _DATA_AT
        stop = start + captured
        interface = self._checked(number, stop, buffer, at, end)
        return interface, self._time(interface, high, low), buffer, start, stop, original - captured, []

    def _simple_packet(self, buffer: bytes, at: int, end: int) -> Packet:
        """It has no time, and takes that of the packet before it; nor a captured length: see Ref.

        Ref: draft-ietf-opsawg-pcapng, 4.4: that is the least of original, snaplen and block
        """
        if end - at < _SIMPLE_DATA_AT + 4:
            raise self._damaged(buffer, at, "a packet without its head")
        (original,) = self._layout.number(buffer, at)
        start = at + _SIMPLE_DATA_AT
        interface = self._numbered(0, buffer, at)
        captured = min(original, interface.snaplen or original, end - 4 - start)
        return interface, self._last_ns, buffer, start, start + captured, original - captured, []

    def _time(self, interface: Interface, high: int, low: int) -> int:
        time_ns = (high << 32 | low) * interface.multiplier // interface.divisor + interface.offset_ns
        self._last_ns = time_ns = time_ns if 0 <= time_ns < END_OF_TIME else 0
        return time_ns

    def _checked(self, number: int, stop: int, buffer: bytes, at: int, end: int) -> Interface:
        """The interface of a packet whose data end at `stop`."""
        if stop > end - 4:
            raise self._damaged(buffer, at, "a packet longer than its block")
        return self._numbered(number, buffer, at)

    def _numbered(self, number: int, buffer: bytes, at: int) -> Interface:
        if number >= len(self._section):
            raise self._damaged(buffer, at, f"a packet of interface {number}, which is not there")
        return self._section[number]

    def _comments(self, buffer: bytes, at: int, end: int) -> list[str]:
        found: list[str] = []
        for code, value in self._options(buffer, at, end):
            if code == _OPT_COMMENT and len(found) < _MAX_COMMENTS:
                found.append(_text(value))
        return found

    def _options(self, buffer: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Code and value of each option, as far as they are well formed."""
        while at + 4 <= end:
            code, size = self._layout.option(buffer, at)
            at += 4
            if not code or at + size > end:
                return
            yield code, buffer[at : at + size]
            at += size + (-size & 3)

    def _damaged(self, buffer: bytes, at: int, what: str) -> Damaged:
        return Damaged(f"{self._stream.name} is damaged {self._stream.at(len(buffer) - at)}: {what}")

    def _cut_off(self) -> CutOff:
        return CutOff(f"{self._stream.name} is cut off {self._stream.at(0)}, in the middle of a block")


def _text(value: bytes) -> str:
    return value[: 4 * MAX_TEXT].decode(errors="replace")[:MAX_TEXT]
