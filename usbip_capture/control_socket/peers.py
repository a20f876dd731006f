"""Who is at the other end of a Unix socket, as the kernel knows it."""

from __future__ import annotations

import os
import socket
import struct
import sys

#: Ref: Linux socket(7), SO_PEERCRED; unix(7), struct ucred: pid, uid, gid
_UCRED = struct.Struct("iII")
#: Ref: macOS sys/un.h, sys/ucred.h, struct xucred: cr_version, cr_uid, ...
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE = 0, 1, 76


def peer_uid(sock: socket.socket) -> int | None:
    """The user id of the peer; None where there is none, or the system does not know. Raises OSError."""
    if not hasattr(socket, "AF_UNIX") or sock.family != socket.AF_UNIX:
        return None
    if hasattr(socket, "SO_PEERCRED"):
        return int(_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1])
    if sys.platform == "darwin":
        return int(struct.unpack_from("II", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE))[1])
    return None


def is_trusted(sock: socket.socket) -> bool:
    """Whether the peer is of our user, or root; what has no user has to show the token."""
    uid = peer_uid(sock)
    return uid is None or uid in (0, os.geteuid())
