"""Classic pcap: one link type for all packets, microseconds, no names and no comments.

Ref: IETF draft-ietf-opsawg-pcap
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from usbip_capture.usb.urb import Buffer

_MAGIC = 0xA1B2C3D4
_FILE = Struct("<IHHiIII")
_RECORD = Struct("<IIII")
# Of an enhanced packet block: captured and original length, behind type, length, interface and time stamp.
_LENGTHS = Struct("<20xII")
_PACKET_START = 28


def file_header(link_type: int, snaplen: int) -> bytes:
    """The beginning of the file."""
    return _FILE.pack(_MAGIC, 2, 4, 0, 0, snaplen, link_type)


def packet_of(block: Sequence[Buffer]) -> tuple[bytes, int]:
    """The packet in an enhanced packet block of ours, and its original length."""
    raw = b"".join(block)
    captured, original = _LENGTHS.unpack_from(raw)
    return raw[_PACKET_START : _PACKET_START + captured], original


def pack_record(timestamp_ns: int, packet: bytes, original_length: int) -> bytes:
    """One packet of the file."""
    seconds, rest = divmod(timestamp_ns, 1_000_000_000)
    return _RECORD.pack(seconds & 0xFFFFFFFF, rest // 1000, len(packet), original_length) + packet
