"""The packets of a recording in pcap or pcapng, from a stream, without more of it in memory than a portion.

Bytes of the packets are not copied: each comes as a place in the portion that was read.

Ref: IETF draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import TypeAlias

from usbip_capture.errors import CaptureError
from usbip_capture.recordings.packed import packed_with

# time stamp (ns), link type, portion, where the packet begins and ends in it, bytes of the packet that are missing
Packet: TypeAlias = "tuple[int, int, bytes, int, int, int]"

#: A packet longer than this, or a block that must be read as a whole, is a sign of damage: both are held in memory.
_MAX_PACKET = 16 << 20
_MAX_WHOLE_BLOCK = _MAX_PACKET + (1 << 20)
#: Other blocks, such as name lists or secrets, are left out piece by piece.
MAX_BLOCK = 1 << 30
#: What an obsolete packet block could name; each takes memory until its section ends.
_MAX_INTERFACES = 1 << 16
#: Nanoseconds that no clock shows: such a time stamp is damaged.
_END_OF_TIME = 1 << 63

_SECTION = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER = 0x1A2B3C4D
_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE_PACKET = 3
_ENHANCED_PACKET = 6
_READ = (_SECTION_HEADER, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET)
_TSRESOL, _TSOFFSET = 9, 14
# magic -> nanoseconds of a tick of the second time field
_MAGIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_FILE_HEADER = 24


def read_packets(read: Callable[[], bytes], name: str) -> Iterator[Packet]:
    """The packets of the recording that `read` gives piece by piece, empty at its end.

    Raises CaptureError for what is no recording, and where a damaged one cannot be read any further.
    """
    data = _at_least(read, b"", _FILE_HEADER)
    if data.startswith(_SECTION):
        yield from _pcapng(read, data, name)
        return
    for order in "<>":
        if len(data) >= _FILE_HEADER:
            magic, *_, link_type = Struct(order + "IHHIIII").unpack_from(data)
            if magic in _MAGIC:
                # The upper bits tell of checksums at the end of a frame.
                yield from _classic(read, data, order, _MAGIC[magic], link_type & 0xFFFF, name)
                return
    raise CaptureError(not_a_recording(name, data))


def not_a_recording(name: str, data: bytes) -> str:
    """What to say of a file that begins with `data`."""
    packed = packed_with(name, data)
    if packed is not None:
        return packed
    if not data:
        return f"{name} is empty"
    return f"{name} is not a recording of packets: pcap or pcapng is needed, gzip'ed or not"


def _at_least(read: Callable[[], bytes], data: bytes, size: int) -> bytes:
    """`data` and more, until there are `size` bytes or no more come."""
    parts, have = [data], len(data)
    while have < size and (more := read()):
        parts.append(more)
        have += len(more)
    return b"".join(parts)


def _refilled(read: Callable[[], bytes], data: bytes, length: int, *, leave_out: bool) -> bytes | None:
    """`data`, which begins with a block of that length, so that it holds all of it; or what follows the block.

    None if the recording ends in it.
    """
    if not leave_out:
        data = _at_least(read, data, length)
        return None if len(data) < length else data
    missing = length - len(data)
    while data := read():
        if len(data) >= missing:
            return data[missing:]
        missing -= len(data)
    return None


def _classic(
    read: Callable[[], bytes], data: bytes, order: str, tick_ns: int, link_type: int, name: str
) -> Iterator[Packet]:
    header = Struct(order + "IIII").unpack_from
    at, end = _FILE_HEADER, len(data)
    while True:
        if end - at < 16:
            data, at = _at_least(read, data[at:], 16), 0
            end = len(data)
            if end < 16:
                break
        seconds, ticks, captured, original = header(data, at)
        if captured > _MAX_PACKET:
            raise CaptureError(f"{name} is damaged: it has a packet that claims {captured} bytes")
        if end - at < 16 + captured:
            data, at = _at_least(read, data[at:], 16 + captured), 0
            end = len(data)
            if end < 16 + captured:
                break
        start = at + 16
        at = start + captured
        yield seconds * 1_000_000_000 + ticks * tick_ns, link_type, data, start, at, original - captured
    if end:
        raise CaptureError(f"{name} is cut off in the middle of a packet")


class _Interface:
    """link_type, and how a time stamp becomes nanoseconds: `ticks * numerator // denominator + offset_ns`."""

    __slots__ = ("denominator", "link_type", "numerator", "offset_ns", "snaplen")

    def __init__(self, order: str, body: bytes) -> None:
        self.link_type, self.snaplen = Struct(order + "HxxI").unpack_from(body)
        self.numerator, self.denominator, self.offset_ns = 1000, 1, 0
        at, option = 8, Struct(order + "HH")
        while at + 4 <= len(body):
            code, length = option.unpack_from(body, at)
            value = body[at + 4 : at + 4 + length]
            if code == _TSRESOL and len(value) == 1:
                exponent = value[0] & 0x7F
                ticks = 2**exponent if value[0] & 0x80 else 10**exponent
                self.numerator, self.denominator = 1_000_000_000, ticks
                if not 1_000_000_000 % ticks:
                    self.numerator, self.denominator = 1_000_000_000 // ticks, 1
            elif code == _TSOFFSET and len(value) == 8:
                self.offset_ns = Struct(order + "q").unpack(value)[0] * 1_000_000_000
            at += 4 + length + -length % 4

    def time_ns(self, high: int, low: int) -> int:
        nanoseconds = (high << 32 | low) * self.numerator // self.denominator + self.offset_ns
        return nanoseconds if 0 <= nanoseconds < _END_OF_TIME else 0


def _pcapng(read: Callable[[], bytes], data: bytes, name: str) -> Iterator[Packet]:
    order, head, packet = "<", Struct("<II"), Struct("<IIIII")
    interfaces: list[_Interface] = []
    at, end, last_ns = 0, len(data), 0
    while True:
        if end - at < 12:
            data, at = _at_least(read, data[at:], 12), 0
            end = len(data)
            if end < 12:
                break
        if data.startswith(_SECTION, at):
            order = _byte_order(data, at, name)
            head, packet = Struct(order + "II"), Struct(order + "IIIII")
        kind, length = head.unpack_from(data, at)
        if length < 12 or length & 3 or (length > _MAX_WHOLE_BLOCK and (kind in _READ or length > MAX_BLOCK)):
            raise CaptureError(f"{name} is damaged: it has a block that claims {length} bytes")
        if end - at < length:
            more = _refilled(read, data[at:], length, leave_out=kind not in _READ)
            if more is None:
                break
            data, at, end = more, 0, len(more)
            if kind not in _READ:
                continue
        if kind == _ENHANCED_PACKET and length >= 32:
            number, high, low, captured, original = packet.unpack_from(data, at + 8)
            if number >= len(interfaces) or captured > length - 32:
                raise CaptureError(f"{name} is damaged: a packet block does not fit its interface or its length")
            interface = interfaces[number]
            last_ns = interface.time_ns(high, low)
            start = at + 28
            yield last_ns, interface.link_type, data, start, start + captured, original - captured
        elif kind == _SECTION_HEADER:
            interfaces = []
        elif kind == _INTERFACE and length >= 20:
            _add_interface(interfaces, _Interface(order, data[at + 8 : at + length - 4]), name)
        elif kind in (_SIMPLE_PACKET, _OLD_PACKET):
            last_ns, found = _rare_packet(order, kind, data, at, length, interfaces, last_ns)
            if found is not None:
                yield found
        at += length
    if end:
        raise CaptureError(f"{name} is cut off in the middle of a block")


def _add_interface(interfaces: list[_Interface], interface: _Interface, name: str) -> None:
    if len(interfaces) >= _MAX_INTERFACES:
        raise CaptureError(f"{name} is damaged: it has more than {_MAX_INTERFACES} interfaces")
    interfaces.append(interface)


def _byte_order(data: bytes, at: int, name: str) -> str:
    for order in "<>":
        if Struct(order + "I").unpack_from(data, at + 8)[0] == _BYTE_ORDER:
            return order
    raise CaptureError(f"{name} is damaged: a section of it has no byte order")


def _rare_packet(
    order: str, kind: int, data: bytes, at: int, length: int, interfaces: list[_Interface], last_ns: int
) -> tuple[int, Packet | None]:
    """A simple packet, which has no time of its own and takes that of the one before, or an obsolete packet block."""
    if kind == _SIMPLE_PACKET and interfaces and length >= 16:
        (original,) = Struct(order + "I").unpack_from(data, at + 8)
        captured = min(original, interfaces[0].snaplen or original, length - 16)
        start = at + 12
        return last_ns, (last_ns, interfaces[0].link_type, data, start, start + captured, original - captured)
    if kind == _OLD_PACKET and length >= 32:
        number, high, low, captured, original = Struct(order + "HxxIIII").unpack_from(data, at + 8)
        if number < len(interfaces) and captured <= length - 32:
            last_ns = interfaces[number].time_ns(high, low)
            start = at + 28
            found = (last_ns, interfaces[number].link_type, data, start, start + captured, original - captured)
            return last_ns, found
    return last_ns, None
