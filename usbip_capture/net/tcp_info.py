"""What the system has measured of a TCP connection.

Ref: Linux include/uapi/linux/tcp.h, struct tcp_info: tcpi_rtt, in microseconds, behind 8 bytes and 15 numbers
"""

from __future__ import annotations

import socket
import struct
import sys

_TCP_INFO = getattr(socket, "TCP_INFO", 0) if sys.platform == "linux" else 0
_RTT, _RTT_AT = struct.Struct("@I"), 8 + 15 * 4


def round_trip(sock: socket.socket) -> float | None:
    """Seconds that a packet takes to the peer and back; None where it does not measure it."""
    if not _TCP_INFO or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RTT_AT + _RTT.size)
    except OSError:  # the peer has left
        return None
    return _RTT.unpack_from(info, _RTT_AT)[0] / 1e6 if len(info) == _RTT_AT + _RTT.size else None
