"""From a packet of a recording to the TCP segment in it: link layers, VLAN tags, IPv4 and IPv6.

Ref: https://www.tcpdump.org/linktypes.html; RFC 791, 8200, 9293
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, TypeAlias

ETHERNET: Final = 1
NULL, LOOP, RAW = 0, 108, 101
LINUX_SLL, LINUX_SLL2, IPV4, IPV6 = 113, 276, 228, 229
_RAW_OLD = (12, 14)

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16

# addresses and ports as they lie in the packet, sequence number, acknowledged number, flags, where the payload begins
# and ends, bytes of it that were not recorded
Segment: TypeAlias = "tuple[bytes, int, int, int, int, int, int]"

_VLAN = {0x8100, 0x88A8, 0x9100}
_IP_TYPES = {0x0800, 0x86DD}
#: Below it the field is a length. Ref: IEEE 802.3, 3.2.6
_SMALLEST_TYPE = 0x0600
# Ref: https://www.iana.org/assignments/ieee-802-numbers, protocol-numbers
_TYPE_NAMES = {
    0x0806: "ARP", 0x8847: "MPLS", 0x8848: "MPLS", 0x8863: "PPPoE", 0x8864: "PPPoE", 0x888E: "802.1X", 0x88CC: "LLDP",
    0x88E5: "MACsec", 0x88E7: "802.1ah", 0x8926: "VN-Tag", 0x894F: "NSH",
}  # fmt: skip
_TUNNELS = {4: "IPv4 in IP", 41: "IPv6 in IP", 47: "GRE", 50: "ESP", 115: "L2TP", 137: "MPLS in IP"}
_TCP: Final = 6
# Hop-by-hop options, routing, destination options: next header, length. Fragments and authentication have their own.
_EXTENSIONS = {0, 43, 60}
_FRAGMENT, _AUTHENTICATION = 44, 51

# version and header length, total length, fragment, protocol, source and destination with ports, then of TCP: sequence
# and acknowledged number, data offset, flags
_IPV4_TCP: Final = Struct(">BxHxxHxBxx12sIIBB").unpack_from
_Ipv4Tcp: TypeAlias = "tuple[int, int, int, int, bytes, int, int, int, int]"
_IPV4 = Struct(">xxHxxHxBxx8s").unpack_from
_IPV6 = Struct(">4xHBx32s").unpack_from
_TCP_HEADER = Struct(">4sIIBB").unpack_from
_TYPE = Struct(">H").unpack_from


def ip_finder(link_type: int) -> Callable[[bytes, int, int], int] | None:
    """How to find the IP header in packets of this link type: (portion, start, end) to where it is, -1 if none is.

    None: such packets cannot be read.
    """
    return _FINDERS.get(link_type)


def tcp_segment(data: bytes, at: int, end: int) -> Segment | None:
    """The TCP segment in the IP packet at `at`, of which the recording has what lies before `end`; None if none is."""
    if end - at >= 40:
        fields: _Ipv4Tcp = _IPV4_TCP(data, at)
        version, total, fragment, protocol, key, seq, ack, offset, flags = fields
        if version == 0x45 and protocol == _TCP and not fragment & 0x3FFF:
            start = at + 20 + (offset >> 2 & 60)
            # 0: longer than the field, or cut into packets by the network adapter only
            stop = at + total if total else end
            if stop <= end:
                return key, seq, ack, flags, start, stop, 0
            return _cut(key, seq, ack, flags, start, stop, end)
        if version >> 4 == 6:
            return _ipv6(data, at, end)
    if end - at >= 20 and data[at] >> 4 == 4:
        return _ipv4_with_options(data, at, end)
    return None


def hidden_in(link_type: int, data: bytes, at: int, end: int) -> str:
    """What the packet at `at`, in which no IP header was found, is of, for people; empty if that is not known."""
    if link_type != ETHERNET or end - at < 14:
        return ""
    at += 12
    while end - at >= 6 and _TYPE(data, at)[0] in _VLAN:
        at += 4
    (kind,) = _TYPE(data, at)
    if kind < _SMALLEST_TYPE:
        return "802.3 with LLC"
    name = _TYPE_NAMES.get(kind)
    return f"Ethernet type {kind:#06x}{f' ({name})' if name else ''}"


def tunnel_in(data: bytes, at: int, end: int) -> str:
    """The tunnel in the IP packet at `at`, for people; empty if it is not one."""
    if end - at < 20:
        return ""
    name = _TUNNELS.get(data[at + 9] if data[at] >> 4 == 4 else data[at + 6])
    return "" if name is None else f"IP tunnel ({name})"


def reverse_key(key: bytes) -> bytes:
    """The addresses and ports of the other direction."""
    half = (len(key) - 4) // 2
    return key[half : 2 * half] + key[:half] + key[-2:] + key[-4:-2]


def addresses(key: bytes) -> tuple[str, int, str, int]:
    """Source and destination of a key, for people."""
    from ipaddress import ip_address

    half = (len(key) - 4) // 2
    ports = int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big")
    return str(ip_address(key[:half])), ports[0], str(ip_address(key[half : 2 * half])), ports[1]


def _cut(key: bytes, seq: int, ack: int, flags: int, start: int, stop: int, end: int) -> Segment:
    """A segment whose end was not recorded."""
    recorded = max(start, end)
    return key, seq, ack, flags, start, recorded, max(stop - recorded, 0)


def _ipv4_with_options(data: bytes, at: int, end: int) -> Segment | None:
    total, fragment, protocol, pair = _IPV4(data, at)
    header = (data[at] & 15) * 4
    if protocol != _TCP or fragment & 0x3FFF or header < 20:
        return None
    return _tcp(data, at + header, end, at + total if total else end, pair)


def _ipv6(data: bytes, at: int, end: int) -> Segment | None:
    length, following, pair = _IPV6(data, at)
    stop = at + 40 + length if length else end
    at += 40
    while following != _TCP:
        if at + 8 > end:
            return None
        if following in _EXTENSIONS:
            size = (data[at + 1] + 1) * 8
        elif following == _AUTHENTICATION:
            size = (data[at + 1] + 2) * 4
        elif following == _FRAGMENT and not _TYPE(data, at + 2)[0] & 0xFFF9:
            size = 8  # the only fragment
        else:
            return None
        following = data[at]
        at += size
    return _tcp(data, at, end, stop, pair)


def _tcp(data: bytes, at: int, end: int, stop: int, pair: bytes) -> Segment | None:
    if end - at < 20:
        return None
    ports, seq, ack, offset, flags = _TCP_HEADER(data, at)
    start = at + (offset >> 2 & 60)
    if stop <= end:
        return pair + ports, seq, ack, flags, start, stop, 0
    return _cut(pair + ports, seq, ack, flags, start, stop, end)


# -- link layers


def _ethernet(data: bytes, at: int, end: int) -> int:
    return _after_type(data, at + 12, end)


def _after_type(data: bytes, at: int, end: int) -> int:
    """Behind the type at `at` and VLAN tags."""
    while end - at >= 2:
        (kind,) = _TYPE(data, at)
        if kind in _IP_TYPES:
            return at + 2
        if kind not in _VLAN:
            return -1
        at += 4
    return -1


def _linux_sll(data: bytes, at: int, end: int) -> int:
    return _after_type(data, at + 14, end)


def _linux_sll2(data: bytes, at: int, end: int) -> int:
    if end - at < 20:
        return -1
    (kind,) = _TYPE(data, at)
    if kind in _IP_TYPES:
        return at + 20
    # A tag is recorded behind the header, with the type of what it is around.
    return _after_type(data, at + 22, end) if kind in _VLAN else -1


def _loopback(data: bytes, at: int, end: int) -> int:
    """The address family is in the byte order of the machine, and its number for IPv6 differs: the packet decides."""
    return _raw(data, at + 4, end)


def _raw(data: bytes, at: int, end: int) -> int:
    return at if at < end and data[at] >> 4 in (4, 6) else -1


_FINDERS: dict[int, Callable[[bytes, int, int], int]] = {
    ETHERNET: _ethernet,
    LINUX_SLL: _linux_sll,
    LINUX_SLL2: _linux_sll2,
    NULL: _loopback,
    LOOP: _loopback,
    RAW: _raw,
    IPV4: _raw,
    IPV6: _raw,
    **dict.fromkeys(_RAW_OLD, _raw),
}
