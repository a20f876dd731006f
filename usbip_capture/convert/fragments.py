"""IP packets put together again from their fragments.

TCP avoids them, but tunnels and middleboxes make them. What is missing of a packet is known only when it never comes.

Ref: RFC 791, 3.2; RFC 8200, 4.5
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from struct import Struct

#: Packets that wait for fragments at a time; from then on the oldest is given up.
MAX_WAITING = 256
#: Nanoseconds after which its number may be that of another packet. Ref: Linux net.ipv4.ipfrag_time
MAX_AGE_NS = 30_000_000_000
#: The largest value of an IP header's length field.
_LONGEST = 0xFFFF
_TCP, _FRAGMENT = 6, 44
#: IPv6 headers that may lie before the fragment header: hop-by-hop options, routing, destination options.
_EXTENSIONS = {0, 43, 60}

# header length, total length, identification, flags and offset, protocol, addresses
_IPV4 = Struct(">BxHHHxB2x8s").unpack_from
# payload length, next header, addresses
_IPV6 = Struct(">4xHBx32s").unpack_from
# next header, offset and flags, identification
_IPV6_FRAGMENT = Struct(">BxHI").unpack_from


@dataclass(slots=True)
class _Waiting:
    """body: as far as the last piece. covered: a bit for each 8 bytes that are there. size: of all of it.

    size is 0 until the last fragment is there. header: that of the first.
    """

    since_ns: int
    body: bytearray = field(default_factory=bytearray)
    covered: int = 0
    size: int = 0
    header: bytes = b""

    def add(self, offset: int, piece: bytes) -> None:
        """Put a piece in its place; one that is there already is left out."""
        blocks = (1 << -(-len(piece) // 8)) - 1 << offset // 8
        if blocks & ~self.covered:
            self.covered |= blocks
            end = offset + len(piece)
            self.body.extend(bytes(max(end - len(self.body), 0)))
            self.body[offset:end] = piece

    def whole(self) -> bytes | None:
        """What the pieces make up, None while one is missing."""
        if not self.size or not self.header or self.covered != (1 << -(-self.size // 8)) - 1:
            return None
        return bytes(self.body[: self.size])


class Fragments:
    """Fragments in, whole IP packets out. incomplete: packets of which a fragment never came."""

    def __init__(self) -> None:
        # Ordered: the first of a dict is behind all that were deleted.
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._whole: OrderedDict[bytes, bytes] = OrderedDict()  # the last ones, of which pieces may come again
        self._given_up = 0
        self._now_ns = 0

    @property
    def incomplete(self) -> int:
        """Packets that are not whole, those too that still wait."""
        return self._given_up + len(self._waiting)

    def add(self, timestamp_ns: int, data: bytes, at: int, end: int) -> bytes | None:
        """The whole packet if the one at `at` is a fragment of TCP and its last that was missing, else None."""
        self._now_ns = timestamp_ns
        if end - at < 20:
            return None
        return self._ipv4(data, at, end) if data[at] >> 4 == 4 else self._ipv6(data, at, end)

    def _ipv4(self, data: bytes, at: int, end: int) -> bytes | None:
        first, total, ident, place, protocol, pair = _IPV4(data, at)
        begin, stop = at + (first & 15) * 4, at + total
        if protocol != _TCP or not place & 0x3FFF or not begin <= stop <= end:
            return None
        header = data[at:begin] if not place & 0x1FFF else b""
        key = pair + ident.to_bytes(2, "big")
        whole = self._piece(key, (place & 0x1FFF) * 8, data[begin:stop], header, more=bool(place & 0x2000))
        if whole is None:
            return None
        header, body = whole
        size = len(header) + len(body)
        if size > _LONGEST:
            return None
        return header[:2] + size.to_bytes(2, "big") + header[4:6] + bytes(2) + header[8:] + body

    def _ipv6(self, data: bytes, at: int, end: int) -> bytes | None:
        if end - at < 40 or data[at] >> 4 != 6:
            return None
        length, following, pair = _IPV6(data, at)
        begin, stop = at + 40, at + 40 + length
        while following in _EXTENSIONS and begin + 8 <= end:
            following, begin = data[begin], begin + (data[begin + 1] + 1) * 8
        if following != _FRAGMENT or not begin + 8 <= stop <= end:
            return None
        following, place, ident = _IPV6_FRAGMENT(data, begin)
        header = data[at : at + 40] if not place & 0xFFF8 else b""
        key = pair + ident.to_bytes(4, "big")
        whole = self._piece(key, place & 0xFFF8, data[begin + 8 : stop], header, more=bool(place & 1))
        if whole is None:
            return None
        header, body = whole
        return header[:4] + len(body).to_bytes(2, "big") + bytes((following,)) + header[7:] + body

    def _piece(self, key: bytes, offset: int, piece: bytes, header: bytes, *, more: bool) -> tuple[bytes, bytes] | None:
        """Header and body of the packet if this makes it whole."""
        end = offset + len(piece)
        if end > _LONGEST or not piece or (more and len(piece) % 8):
            return None
        if key in self._whole and self._whole[key][offset:end] == piece:
            return None  # it came twice
        waiting = self._waiting.get(key)
        if waiting is None or self._now_ns - waiting.since_ns > MAX_AGE_NS:
            if waiting is not None:
                del self._waiting[key]
                self._given_up += 1
            elif len(self._waiting) >= MAX_WAITING:
                self._waiting.popitem(last=False)
                self._given_up += 1
            waiting = self._waiting[key] = _Waiting(self._now_ns)
        waiting.add(offset, piece)
        waiting.header = waiting.header or header
        if not more:
            waiting.size = end
        body = waiting.whole()
        if body is None:
            return None
        del self._waiting[key]
        self._whole[key] = body
        if len(self._whole) > MAX_WAITING:
            self._whole.popitem(last=False)
        return waiting.header, body
