"""Takes segments that follow each other without anything special, as nearly all do, in one loop.

They are of TCP on IPv4 and Ethernet, recorded as a whole, of connections that are followed. What is done with them is
what `Converter` does with any packet; it is only faster, as one call unpacks all headers of a packet.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, TypeAlias

from usbip_capture.convert.link import ETHERNET, SYN
from usbip_capture.convert.reassembly import Direction
from usbip_capture.recordings.packets import END_OF_TIME, NANOSECONDS, Interface
from usbip_capture.usb.urb import Buffer

#: Payloads from this size on are not copied out of the portion that was read.
OWN_COPY: Final = 4096

# type of Ethernet; version and header length, total length, fragment, protocol, source and destination with ports; of
# TCP: sequence and acknowledged number, data offset, flags
_SEGMENT: Final = Struct(">12xHBxHxxHxBxx12sIIBB").unpack_from
_Segment: TypeAlias = "tuple[int, int, int, int, int, bytes, int, int, int, int]"
_IP_AT: Final = 14
_TCP_AT: Final = 34
_LEAST: Final = 54
_IPV4: Final = 0x0800
_PLAIN_IPV4: Final = 0x45
_TCP: Final = 6
# A classic file's record: seconds, what is beside them, captured and original length.
_RECORDS: Final = {order: Struct(order + "IIII").unpack_from for order in "<>"}
_Record: TypeAlias = "tuple[int, int, int, int]"
_RECORD_SIZE: Final = 16
# An enhanced packet block: type, total length, interface, time high and low, captured and original length.
_BLOCK: Final = Struct("<IIIIIII").unpack_from
_Block: TypeAlias = "tuple[int, int, int, int, int, int, int]"
_TOTAL: Final = Struct("<I").unpack_from
_PACKET: Final = 6
_DATA_AT: Final = 28
_OVERHEAD: Final = 32


class Runs:
    """Takes runs from portions, see `TakeRun`. packets: how many were taken.

    portion, view: that of the latest packet. on_portion(now_ns, size): called when one begins.
    """

    def __init__(self, directions: dict[bytes, Direction], on_portion: Callable[[int, int], None]) -> None:
        self.packets = 0
        self.portion = b""
        self.view = memoryview(b"")
        self._directions = directions
        self._on_portion = on_portion

    def begins(self, now_ns: int, portion: bytes) -> None:
        """The packet of this time is the first one of a portion."""
        self.portion, self.view = portion, memoryview(portion)
        self._on_portion(now_ns, len(portion))

    def records(self, data: bytes, at: int, interfaces: list[Interface]) -> int:
        """Those of a classic file."""
        interface = interfaces[0]
        if interface.link_type != ETHERNET:
            return at
        head, tick_ns, have = _RECORDS[interface.order], interface.multiplier, len(data)
        while at + _RECORD_SIZE <= have:
            fields: _Record = head(data, at)
            seconds, ticks, captured, original = fields
            start = at + _RECORD_SIZE
            end = start + captured
            if captured != original or end > have:
                break
            if not self._segment(seconds * NANOSECONDS + ticks * tick_ns, data, start, end):
                break
            at = end
        return at

    def blocks(self, data: bytes, at: int, interfaces: list[Interface]) -> int:
        """Those of a section, little-endian."""
        have = len(data)
        while at + _DATA_AT <= have:
            fields: _Block = _BLOCK(data, at)
            kind, size, number, high, low, captured, original = fields
            start, end = at + _DATA_AT, at + size
            if kind != _PACKET or size != (captured + _OVERHEAD + 3 & -4) or captured != original or end > have:
                break
            if number >= len(interfaces) or _TOTAL(data, end - 4)[0] != size:
                break
            interface = interfaces[number]
            now_ns = (high << 32 | low) * interface.multiplier // interface.divisor + interface.offset_ns
            if interface.link_type != ETHERNET or not 0 <= now_ns < END_OF_TIME:
                break
            if not self._segment(now_ns, data, start, start + captured):
                break
            at = end
        return at

    def _segment(self, now_ns: int, data: bytes, start: int, end: int) -> bool:
        """Take the packet; whether it was one of those."""
        if end - start < _LEAST:
            return False
        fields: _Segment = _SEGMENT(data, start)
        kind, version, total, fragment, protocol, key, seq, ack, offset, flags = fields
        if kind != _IPV4 or version != _PLAIN_IPV4 or protocol != _TCP or fragment & 0x3FFF or flags & SYN:
            return False
        if data is not self.portion:
            self.begins(now_ns, data)
        direction = self._directions.get(key)
        begin, stop = start + _TCP_AT + (offset >> 2 & 60), start + _IP_AT + total
        if direction is None or not total or stop > end:
            return False
        self.packets += 1
        payload: Buffer = b""
        if stop > begin:
            payload = data[begin:stop] if stop - begin < OWN_COPY else self.view[begin:stop]
        direction.segment(now_ns, seq, ack, flags, payload, 0)
        return True
