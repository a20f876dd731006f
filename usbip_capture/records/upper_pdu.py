"""Packets for one of Wireshark's dissectors by its name (LINKTYPE_WIRESHARK_UPPER_PDU, 252).

Ref: https://www.tcpdump.org/linktypes/LINKTYPE_WIRESHARK_UPPER_PDU.html; Wireshark, epan/exported_pdu.h
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from struct import Struct

_TAG = Struct(">HH")
_PORT = Struct(">I")
_END = 0
_DISSECTOR_NAME = 12
_IPV4_SOURCE, _IPV4_DESTINATION, _IPV6_SOURCE, _IPV6_DESTINATION = 20, 21, 22, 23
_PORT_TYPE, _SOURCE_PORT, _DESTINATION_PORT = 24, 25, 26

# Port types
TCP, UDP = 2, 3

#: Facility local0, and the severity of remarks. Ref: RFC 5424, 6.2.1
_LOCAL0, _NOTICE = 16 << 3, 5


@dataclass(slots=True, frozen=True)
class Flow:
    """From where to where: IP addresses as text, ports, and TCP or UDP."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    port_type: int = TCP


@dataclass(slots=True, frozen=True)
class UpperPdu:
    """The tags of a packet, and its payload. `flow` is None if it has no source address."""

    dissector: str
    flow: Flow | None
    payload: bytes


def pack_head(dissector: str, flow: Flow | None = None) -> bytes:
    """What stands before the payload of a packet that Wireshark hands to `dissector`."""
    name = dissector.encode("ascii")
    tags = [(_DISSECTOR_NAME, name + bytes(-len(name) % 4))]
    if flow is not None:
        source, destination = ipaddress.ip_address(flow.source), ipaddress.ip_address(flow.destination)
        tags += [
            (_IPV4_SOURCE if source.version == 4 else _IPV6_SOURCE, source.packed),
            (_IPV4_DESTINATION if destination.version == 4 else _IPV6_DESTINATION, destination.packed),
            (_PORT_TYPE, _PORT.pack(flow.port_type)),
            (_SOURCE_PORT, _PORT.pack(flow.source_port)),
            (_DESTINATION_PORT, _PORT.pack(flow.destination_port)),
        ]
    tags.append((_END, b""))
    return b"".join(_TAG.pack(tag, len(value)) + value for tag, value in tags)


def parse_upper_pdu(data: bytes) -> UpperPdu | None:
    """A packet of this link type; None if it is cut off before its payload."""
    tags: dict[int, bytes] = {}
    at = 0
    while at + _TAG.size <= len(data):
        tag, length = _TAG.unpack_from(data, at)
        at += _TAG.size
        if tag == _END:
            dissector = tags.get(_DISSECTOR_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
            return UpperPdu(dissector, _flow(tags), data[at:])
        tags[tag] = data[at : at + length]
        at += length
    return None


def pack_remark(text: str, severity: int = _NOTICE) -> bytes:
    """A remark of ours as a packet of its own: as syslog, for then every version shows it in the column Info.

    severity: as syslog has it.
    """
    return pack_head("syslog") + f"<{_LOCAL0 | severity}>{text}".encode()


def _flow(tags: dict[int, bytes]) -> Flow | None:
    source, destination = (
        tags.get(four) or tags.get(six, b"")
        for four, six in ((_IPV4_SOURCE, _IPV6_SOURCE), (_IPV4_DESTINATION, _IPV6_DESTINATION))
    )
    try:
        return Flow(
            str(ipaddress.ip_address(source)),
            int.from_bytes(tags.get(_SOURCE_PORT, b""), "big"),
            str(ipaddress.ip_address(destination)),
            int.from_bytes(tags.get(_DESTINATION_PORT, b""), "big"),
            int.from_bytes(tags.get(_PORT_TYPE, b""), "big"),
        )
    except ValueError:
        return None
