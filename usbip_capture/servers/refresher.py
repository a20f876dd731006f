"""Keeps the cache of announced servers and of labgrid's places fresh: a process of its own that nobody waits for.

Wireshark reads an extcap's answer until its standard output is closed, by whoever has inherited it: the refresher
closes what it inherited before it does anything.
"""

from __future__ import annotations

import os
import sys
import time

from usbip_capture.servers.known import REFRESHER_LOCK_FILE, STAMP_FILE
from usbip_capture.system.folders import cache_folder

#: `off` (no, false, 0): never look for servers by itself.
DISCOVERY_VARIABLE = "USBIP_CAPTURE_DISCOVERY"
#: Seconds between two looks.
_INTERVAL = 60.0
_BROWSE_TIME = 3.0
_OFF = ("off", "no", "false", "0")


def is_off() -> bool:
    """Whether no program of ours is to look for servers by itself."""
    return os.environ.get(DISCOVERY_VARIABLE, "").lower() in _OFF


def start_if_due() -> None:
    """Start a refresher unless one has been started within a minute; never raises."""
    if is_off():
        return
    stamp = os.path.join(cache_folder(), STAMP_FILE)
    try:
        if 0 <= time.time() - os.stat(stamp).st_mtime < _INTERVAL:
            return
    except OSError:
        pass
    try:
        os.makedirs(cache_folder(), mode=0o700, exist_ok=True)
        # Where this cannot be kept, a refresher would be started each time.
        with open(stamp, "w", encoding="ascii"):
            os.utime(stamp)
        _start()
    except OSError:
        pass


def _start() -> None:
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {library!r}); from usbip_capture.servers.refresher import main; main()"
    command = [sys.executable, "-I", "-c", code]
    if os.name == "nt":
        import subprocess

        flags = 0x00000008 | 0x00000200 | 0x08000000  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW
        nowhere = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, creationflags=flags, close_fds=True)
        return
    if os.fork():
        return  # its new parent waits for it: we are about to end
    try:
        os.setsid()
        os.chdir("/")
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nowhere, fd)
        os.closerange(3, 1024)
        os.execv(command[0], command)
    finally:
        os._exit(1)


def main() -> None:
    """Look for servers and places once and remember them; nothing if somebody else does just that."""
    from usbip_capture.servers.memory import lock

    with lock(REFRESHER_LOCK_FILE, 0) as locked:
        if locked:
            _look_for_servers()
            _look_for_places()


def _look_for_servers() -> None:
    from usbip_capture.errors import UsbipError
    from usbip_capture.servers.mdns import discover_usbip_servers
    from usbip_capture.servers.memory import remember_server

    try:
        servers = discover_usbip_servers(_BROWSE_TIME)
    except UsbipError:
        return
    for server in servers:
        for place in (*server.places, *server.dashboards):
            remember_server(*place, server.name, "mdns")


def _look_for_places() -> None:
    """Those whose devices we may use come first: not all of many are listed."""
    from usbip_capture.servers.configuration import coordinator

    where = coordinator()
    if not where:
        return
    from usbip_capture.coordinator.asking import asked
    from usbip_capture.errors import UsbipError
    from usbip_capture.servers.known_places import KnownPlace
    from usbip_capture.servers.memory import remember_places

    try:
        places = asked(where).places
    except UsbipError:  # which the doctor reports
        return
    first = sorted(places, key=lambda place: (not place.is_ours, not place.holder, place.name))
    remember_places(where, [KnownPlace(p.name, d.name, p.label(d)) for p in first for d in p.devices])
