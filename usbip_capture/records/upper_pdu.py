"""Packets for one of Wireshark's dissectors by its name (LINKTYPE_WIRESHARK_UPPER_PDU, 252).

Ref: https://www.tcpdump.org/linktypes/LINKTYPE_WIRESHARK_UPPER_PDU.html; Wireshark, epan/exported_pdu.h
"""

from __future__ import annotations

from struct import Struct

_TAG = Struct(">HH")
_END = 0
_DISSECTOR_NAME = 12

#: Facility local0, severity notice. Ref: RFC 5424, 6.2.1
_REMARK_PRIORITY = 16 << 3 | 5


def pack_upper_pdu(dissector: str, payload: bytes) -> bytes:
    """`payload` as a packet that Wireshark hands to `dissector`."""
    name = dissector.encode("ascii")
    name += bytes(-len(name) % 4)
    return b"".join([_TAG.pack(_DISSECTOR_NAME, len(name)), name, _TAG.pack(_END, 0), payload])


def pack_remark(text: str) -> bytes:
    """A remark of ours as a packet of its own: as syslog, for then every version shows it in the column Info."""
    return pack_upper_pdu("syslog", f"<{_REMARK_PRIORITY}>{text}".encode())


def unpack_upper_pdu(packet: bytes) -> tuple[str, bytes]:
    """Name of the dissector and payload; without a name where it is none, or cut short."""
    name, at = "", 0
    while at + _TAG.size <= len(packet):
        tag, size = _TAG.unpack_from(packet, at)
        at += _TAG.size
        if tag == _END:
            return name, packet[at:]
        if tag == _DISSECTOR_NAME:
            name = packet[at : at + size].rstrip(b"\0").decode("ascii", "replace")
        at += size
    return "", b""
