"""Classic pcap files: one link type, microseconds or nanoseconds, either byte order.

Ref: IETF draft-ietf-opsawg-pcap, sections 4 and 5
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, TypeAlias

from usbip_capture.recordings.packets import NANOSECONDS, CutOff, Damaged, Interface, Packet, TakeRun
from usbip_capture.recordings.stream import Stream

#: How a file begins -> byte order, nanoseconds in a tick.
MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_HEADER_SIZE: Final = 24
_LINK_TYPE_AT = 20
# A link type has 16 bits, as in pcapng; those above it describe frame check sequences, or are reserved.
_LINK_TYPE = 0xFFFF
_HEAD_SIZE: Final = 16
_Head: TypeAlias = "tuple[int, int, int, int]"


def read_classic(
    stream: Stream, interfaces: list[Interface] | None, max_packet: int, take_run: TakeRun | None = None
) -> Iterator[Packet]:
    """The packets of a file that begins with one of MAGIC; its interface is added to `interfaces`.

    take_run: takes those that are not to be handed out, see `TakeRun`.
    Raises CaptureError where it cannot be read any further.
    """
    order, tick_ns = MAGIC[stream.magic]
    data = stream.more(stream.first, _HEADER_SIZE)
    have = len(data)
    if have < _HEADER_SIZE:
        raise CutOff(f"{stream.name} is cut off {stream.at(0)}, in its header")
    (network,) = Struct(order + "I").unpack_from(data, _LINK_TYPE_AT)
    interface = Interface(network & _LINK_TYPE, order, tick_ns, 1)
    section = [interface]
    if interfaces is not None:
        interfaces.append(interface)
    head = Struct(order + "IIII").unpack_from
    none: list[str] = []
    at = _HEADER_SIZE
    while True:
        if take_run is not None:
            at = take_run(data, at, section)
        if have - at < _HEAD_SIZE:
            data, at = stream.more(data[at:], _HEAD_SIZE), 0
            have = len(data)
            if have < _HEAD_SIZE:
                break
        fields: _Head = head(data, at)
        seconds, ticks, captured, original = fields
        if captured > max_packet:
            raise Damaged(f"{stream.name} is damaged {stream.at(have - at)}: a packet of {captured} bytes")
        if have - at < _HEAD_SIZE + captured:
            data, at = stream.more(data[at:], _HEAD_SIZE + captured), 0
            have = len(data)
            if have < _HEAD_SIZE + captured:
                break
        start = at + _HEAD_SIZE
        at = start + captured
        yield interface, seconds * NANOSECONDS + ticks * tick_ns, data, start, at, original - captured, none
    if have:
        raise CutOff(f"{stream.name} is cut off {stream.at(0)}, in the middle of a packet")
