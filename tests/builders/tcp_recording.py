"""Recordings of TCP made for tests: who sends what, cut into segments, as packets of any link type in a pcap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from struct import Struct

from usbip_capture.convert.link import ACK, FIN, SYN, ip_finder, tcp_segment
from usbip_capture.recordings.reading import open_capture

CLIENT, SERVER = 0, 1
PSH = 8
START_NS = 1_700_000_000_000_000_000
STEP_NS = 1_000_000
ETHERNET, VLAN, SLL, SLL2, NULL, LOOP, RAW = "ethernet", "vlan", "sll", "sll2", "null", "loop", "raw"
LINK_TYPES = {ETHERNET: 1, VLAN: 1, SLL: 113, SLL2: 276, NULL: 0, LOOP: 108, RAW: 101}

#: Who sends something, and what.
Turn = tuple[int, bytes]
_IPV4 = Struct(">BBHHHBBH4s4s")
_IPV6 = Struct(">IHBB16s16s")
_PLACE = Struct(">HH")
_TCP = Struct(">HHIIBBHHH")


@dataclass(frozen=True)
class Segment:
    """seq and ack as in the packet."""

    side: int
    seq: int
    ack: int
    payload: bytes = b""
    flags: int = PSH | ACK
    timestamp_ns: int = 0


@dataclass(frozen=True)
class Hosts:
    """Addresses and ports of the two sides."""

    client: str = "10.0.0.1"
    server: str = "10.0.0.2"
    client_port: int = 40000
    server_port: int = 3240


def golden_turns(path: Path) -> list[Turn]:
    """What is sent in a recording of one connection without loss."""
    turns: list[Turn] = []
    client_port = -1
    with open_capture(path) as capture:
        for interface, _, data, start, end, _, _ in capture.packets:
            finder = ip_finder(interface.link_type)
            assert finder is not None
            found = tcp_segment(data, finder(data, start, end), end)
            assert found is not None
            key, _, _, flags, begin, stop, _ = found
            port = int.from_bytes(key[-4:-2], "big")
            if flags & SYN and not flags & ACK:
                client_port = port
            if stop > begin:
                turns.append((CLIENT if port == client_port else SERVER, data[begin:stop]))
    return turns


def segments(
    turns: Iterable[Turn],
    *,
    size: int = 1448,
    starts: Sequence[int] = (1000, 2**32 - 2000),
    opened: bool = True,
    closed: bool = True,
) -> list[Segment]:
    """The connection as segments of at most `size` bytes; the numbers of the server run over 2**32 soon."""
    out: list[Segment] = []
    at = [starts[0] + 1, starts[1] + 1]

    def add(side: int, seq: int, ack: int, payload: bytes, flags: int) -> None:
        stamp = START_NS + STEP_NS * len(out)
        out.append(Segment(side, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, payload, flags, stamp))

    if opened:
        add(CLIENT, starts[0], 0, b"", SYN)
        add(SERVER, starts[1], at[0], b"", SYN | ACK)
        add(CLIENT, at[0], at[1], b"", ACK)
    for side, data in turns:
        for begin in range(0, len(data), size):
            piece = data[begin : begin + size]
            add(side, at[side], at[1 - side], piece, PSH | ACK)
            at[side] += len(piece)
        add(1 - side, at[1 - side], at[side], b"", ACK)
    if closed:
        add(CLIENT, at[CLIENT], at[SERVER], b"", FIN | ACK)
        add(SERVER, at[SERVER], at[CLIENT] + 1, b"", FIN | ACK)
        add(CLIENT, at[CLIENT] + 1, at[SERVER] + 1, b"", ACK)
    return out


def restamped(segments: Iterable[Segment], step_ns: int = STEP_NS) -> list[Segment]:
    """In this order, a step apart."""
    return [replace(s, timestamp_ns=START_NS + step_ns * n) for n, s in enumerate(segments)]


def packet(segment: Segment, link: str = ETHERNET, hosts: Hosts = Hosts()) -> bytes:
    """The segment as it is seen at this link."""
    source, target = ip_address(hosts.client), ip_address(hosts.server)
    ports = hosts.client_port, hosts.server_port
    if segment.side == SERVER:
        source, target, ports = target, source, ports[::-1]
    tcp = _TCP.pack(*ports, segment.seq, segment.ack, 5 << 4, segment.flags, 0xFFFF, 0, 0) + segment.payload
    if source.version == 4:
        ip = _IPV4.pack(0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, source.packed, target.packed)
    else:
        ip = _IPV6.pack(6 << 28, len(tcp), 6, 64, source.packed, target.packed)
    kind = (0x0800 if source.version == 4 else 0x86DD).to_bytes(2, "big")
    head = {
        ETHERNET: bytes(12) + kind,
        VLAN: bytes(12) + b"\x88\xa8\x00\x07\x81\x00\x00\x05" + kind,
        SLL: bytes(14) + kind,
        SLL2: kind + bytes(18),
        NULL: (2 if source.version == 4 else 30).to_bytes(4, "little"),
        LOOP: (2 if source.version == 4 else 24).to_bytes(4, "big"),
        RAW: b"",
    }[link]
    return head + ip + tcp


def fragmented(ip: bytes, size: int, ident: int) -> list[bytes]:
    """A packet of IP without options as fragments of at most `size` bytes, a multiple of 8; itself if it fits."""
    header, body = (ip[:20], ip[20:]) if ip[0] >> 4 == 4 else (ip[:40], ip[40:])
    pieces = []
    for at in range(0, len(body), size):
        piece, more = body[at : at + size], at + size < len(body)
        if len(body) <= size:
            return [ip]
        if len(header) == 20:
            total, place = len(header) + len(piece), at // 8 | more << 13
            pieces.append(header[:2] + total.to_bytes(2, "big") + _PLACE.pack(ident, place) + header[8:] + piece)
        else:
            extension = bytes((header[6], 0)) + (at | more).to_bytes(2, "big") + ident.to_bytes(4, "big")
            length = (8 + len(piece)).to_bytes(2, "big")
            pieces.append(header[:4] + length + bytes((44,)) + header[7:] + extension + piece)
    return pieces


def pcap(packets: Iterable[tuple[int, bytes]], link: str = ETHERNET, *, snaplen: int = 1 << 20) -> bytes:
    """A file with these packets, each with its time in nanoseconds."""
    out = [Struct("<IHHiIII").pack(0xA1B23C4D, 2, 4, 0, 0, snaplen, LINK_TYPES[link])]
    for timestamp_ns, data in packets:
        out.append(Struct("<IIII").pack(*divmod(timestamp_ns, 10**9), min(len(data), snaplen), len(data)))
        out.append(data[:snaplen])
    return b"".join(out)


def recording(segments: Iterable[Segment], link: str = ETHERNET, hosts: Hosts = Hosts()) -> bytes:
    """A file of one connection."""
    return pcap(((s.timestamp_ns, packet(s, link, hosts)) for s in segments), link)
