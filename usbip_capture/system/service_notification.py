"""Notifies the service manager that started this program: ready, alive, about to end.

Ref: systemd sd_notify(3), sd_watchdog_enabled(3)
"""

from __future__ import annotations

import os
import socket

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(*states: str) -> bool:
    """Send them, such as READY or `STATUS=...`; False where nobody wants to know. Never raises, never waits."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            # A path that begins with @ has no file. Ref: Linux unix(7), abstract sockets
            sock.sendto("\n".join(states).encode(), path if path[0] == "/" else f"\0{path[1:]}")
    except OSError:
        return False
    return True


def watchdog_period() -> float:
    """Seconds within which ALIVE is expected again and again; 0 if it is not."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(usec) / 1e6
