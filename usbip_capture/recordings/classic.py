"""Classic pcap files: one link type, microseconds or nanoseconds, either byte order.

Ref: IETF draft-ietf-opsawg-pcap, sections 4 and 5
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from usbip_capture.recordings.packets import MAX_PACKET, NANOSECONDS, CutOff, Damaged, Interface, Packet
from usbip_capture.recordings.source import Source

#: How a file begins -> byte order, nanoseconds in a tick.
MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_HEADER_SIZE = 24
_LINK_TYPE_AT = 20
# Above it the same word tells of frame check sequences.
_LINK_TYPE = 0x03FFFFFF
_HEAD_SIZE = 16


def read_classic(source: Source, interfaces: list[Interface]) -> Iterator[Packet]:
    """The packets of a file that begins with one of MAGIC; its interface is added to `interfaces`.

    Raises CaptureError where it cannot be read any further.
    """
    order, tick_ns = MAGIC[source.magic]
    buffer = source.more(source.first, _HEADER_SIZE)
    if len(buffer) < _HEADER_SIZE:
        raise CutOff(f"{source.name} is cut off {source.at(0)}, in its header")
    (network,) = Struct(order + "I").unpack_from(buffer, _LINK_TYPE_AT)
    interface = Interface(network & _LINK_TYPE, order, 1, 1)
    interfaces.append(interface)
    head = Struct(order + "IIII").unpack_from
    none: list[str] = []
    at = _HEADER_SIZE
    while True:
        if len(buffer) - at < _HEAD_SIZE:
            buffer, at = source.more(buffer[at:], _HEAD_SIZE), 0
            if len(buffer) < _HEAD_SIZE:
                if buffer:
                    raise CutOff(f"{source.name} is cut off {source.at(0)}, in the middle of a packet")
                return
        seconds, ticks, captured, _ = head(buffer, at)
        if captured > MAX_PACKET:
            raise Damaged(f"{source.name} is damaged {source.at(len(buffer) - at)}: a packet of {captured} bytes")
        end = at + _HEAD_SIZE + captured
        if end > len(buffer):
            buffer, at = source.more(buffer[at:], _HEAD_SIZE + captured), 0
            end = _HEAD_SIZE + captured
            if end > len(buffer):
                raise CutOff(f"{source.name} is cut off {source.at(0)}, in the middle of a packet")
        yield interface, seconds * NANOSECONDS + ticks * tick_ns, buffer[at + _HEAD_SIZE : end], none
        at = end
