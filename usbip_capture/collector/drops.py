"""How many datagrams the system has dropped because a socket's buffer was full.

Ref: Linux, include/uapi/linux/sock_diag.h (SK_MEMINFO_DROPS), asm-generic/socket.h (SO_MEMINFO); it is the number that
SO_RXQ_OVFL sends along with each datagram, and can be asked for when there is none any more
"""

from __future__ import annotations

import socket
import struct
import sys

_SO_MEMINFO = 55
_FIELDS = struct.Struct("=9I")
_DROPS = 8


class Drops:
    """Those of one socket, counted from now on. Always 0 on systems that do not count them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._before = self._total()

    def new(self) -> int:
        """How many there are more than at the last call."""
        total = self._total()
        count, self._before = (total - self._before) & 0xFFFFFFFF, total
        return count

    def _total(self) -> int:
        if sys.platform != "linux":
            return 0
        try:
            raw = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _FIELDS.size)
        except OSError:  # before Linux 4.12
            return 0
        return int(_FIELDS.unpack(raw)[_DROPS]) if len(raw) == _FIELDS.size else 0
