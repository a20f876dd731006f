"""CMD_UNLINK and RET_UNLINK, which usbmon has no record for, as packets of an interface of their own.

Each is the PDU itself in a made-up TCP connection to port 3240, so that Wireshark shows it (Decode As: usbip).
"""

from __future__ import annotations

from struct import Struct

LINKTYPE_RAW = 101
_RET_UNLINK = b"\0\0\0\4"
_PORT = 3240
_CLIENT_PORT = 49152
# An address of the documentation for each side. Ref: RFC 5737
_CLIENT, _SERVER = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
_IPV4 = Struct(">BBHHHBBH4s4s")
_TCP = Struct(">HHIIBBHHH")
_SUMMED = Struct(">4s4sBBH")
_TCP_PROTOCOL = 6
_PSH_ACK = 0x18
_WINDOW = 0xFFFF


def unlink_comment(seqnum: int) -> str:
    """The comment on a URB that this CMD_UNLINK has asked for."""
    return f"usbip-capture: unlinked by CMD_UNLINK {seqnum}"


class UnlinkPackets:
    """The made-up connection of one device."""

    def __init__(self) -> None:
        self._sent = [0, 0]  # by the client, by the server

    def packet(self, message: bytes) -> bytes:
        """The packet of a CMD_UNLINK or RET_UNLINK."""
        side = int(message[:4] == _RET_UNLINK)
        source, target = (_SERVER, _CLIENT) if side else (_CLIENT, _SERVER)
        ports = (_PORT, _CLIENT_PORT) if side else (_CLIENT_PORT, _PORT)
        seq, ack = (self._sent[side] + 1) & 0xFFFFFFFF, (self._sent[1 - side] + 1) & 0xFFFFFFFF
        self._sent[side] += len(message)
        tcp = _TCP.pack(*ports, seq, ack, 5 << 4, _PSH_ACK, _WINDOW, 0, 0) + message
        sum_of = _checksum(_SUMMED.pack(source, target, 0, _TCP_PROTOCOL, len(tcp)) + tcp)
        tcp = tcp[:16] + sum_of + tcp[18:]
        header = _IPV4.pack(0x45, 0, _IPV4.size + len(tcp), 0, 0x4000, 64, _TCP_PROTOCOL, 0, source, target)
        return header[:10] + _checksum(header) + header[12:] + tcp


def _checksum(data: bytes) -> bytes:
    """Ref: RFC 1071"""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
