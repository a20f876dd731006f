"""Remembers servers and devices in the cache: safe with several programs at once, and never in anybody's way."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from usbip_capture.servers.known import (
    CACHE_FILE,
    MAX_BYTES,
    REFRESHER_LOCK_FILE,
    STAMP_FILE,
    Cache,
    KnownDevice,
    KnownServer,
    clean,
    read_cache,
)
from usbip_capture.servers.known_places import MAX_PLACES, PLACES_FILE, KnownPlace
from usbip_capture.system.folders import cache_folder

#: Servers that are remembered, and devices of each; a server that lists more has its first ones remembered.
MAX_SERVERS, MAX_DEVICES = 16, 64
#: Characters of a name: longer than any string of a device.
_MAX_NAME = 255
#: Seconds after which a server that was not seen again is forgotten.
MAX_AGE = 30 * 24 * 3600
_LOCK_FILE, _TEMPORARY, _TEMPORARY_PLACES = "lock", ".servers-new", ".places-new"
#: Of `fleet`: what the servers had when they were last asked.
FLEET_FILE, FLEET_LOCK_FILE = "fleet", "fleet.lock"
FILES = (
    CACHE_FILE, _TEMPORARY, _LOCK_FILE, STAMP_FILE, REFRESHER_LOCK_FILE, FLEET_FILE, FLEET_LOCK_FILE,
    PLACES_FILE, _TEMPORARY_PLACES,
)  # fmt: skip
#: Devices of a server that are not listed now are remembered for so many seconds, and at most so many.
_MISSING = 24 * 3600
_MAX_MISSING = 16
_LOCK_TIMEOUT = 1.0
_LOCK_RETRY = 0.01


def remember_server(host: str, port: int, name: str = "", source: str = "used") -> None:
    """A server was there just now."""

    def change(cache: Cache) -> None:
        before = cache.servers.get((host, port))
        if before is not None:
            kept_name, kept_source = name or before.name, "used" if before.source == "used" else source
        else:
            kept_name, kept_source = name, source
        if source == "mdns":  # it may have got another address
            for key in [k for k, s in cache.servers.items() if s.source == "mdns" and s.name == name]:
                if key[0].rpartition("://")[0] == host.rpartition("://")[0]:
                    del cache.servers[key]
        cache.servers[host, port] = KnownServer(host, port, clean(kept_name), kept_source, int(time.time()))

    _change(change)


def remember_devices(host: str, port: int, devices: Sequence[KnownDevice]) -> None:
    """A server has listed its devices; names that are known from before are kept.

    So are devices whose name was read within a day and are not listed: who uses one takes it off the list.
    """

    def change(cache: Cache) -> None:
        before = {(d.busid, d.vid_pid): d for d in cache.devices.get((host, port), [])}
        kept = list(devices[:MAX_DEVICES])
        for device in kept:
            known = before.get((device.busid, device.vid_pid), device)
            device.name = clean(device.name or known.name)
            device.serial = clean(device.serial or known.serial)
            device.kind = clean(device.kind or known.kind)
            device.seen = int(time.time())
        listed = {device.busid for device in devices}
        missing = [
            device
            for device in cache.devices.get((host, port), [])
            if device.name and device.busid not in listed and time.time() - device.seen < _MISSING
        ]
        cache.devices[host, port] = [*kept, *missing[:_MAX_MISSING]][:MAX_DEVICES]

    _change(change)


def remember_product(host: str, port: int, busid: str, vid_pid: str, name: str = "", serial: str = "") -> None:
    """A device was imported; `name` and `serial` are what it calls itself and its serial number, if it was asked."""

    def change(cache: Cache) -> None:
        devices = cache.devices.setdefault((host, port), [])
        before = next((d for d in devices if d.busid == busid), None)
        if before is not None:
            devices.remove(before)
        same = before if before is not None and before.vid_pid == vid_pid else KnownDevice(busid, vid_pid)
        kept = clean(name) or same.name, int(time.time()), clean(serial) or same.serial
        devices.append(KnownDevice(busid, vid_pid, *kept, same.kind))
        del devices[:-MAX_DEVICES]

    _change(change)


def remember_places(coordinator: str, places: Iterable[KnownPlace]) -> None:
    """What labgrid's coordinator has now, instead of what it, or another one, had before; the first ones of many."""
    lines = [f"coordinator\t{coordinator}"]
    for place in list(places)[:MAX_PLACES]:
        texts = (clean(text)[:_MAX_NAME] for text in (place.place, place.device, place.label))
        lines.append("\t".join(["place", *texts]))
    with lock(_LOCK_FILE, _LOCK_TIMEOUT) as locked:
        if locked:
            try:
                _replace(_TEMPORARY_PLACES, PLACES_FILE, lines)
            except OSError as error:
                _log("the cache cannot be written: %s", error)


def forget_everything() -> None:
    """Remove the cache."""
    for name in FILES:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(cache_folder(), name))
    with contextlib.suppress(OSError):
        os.rmdir(cache_folder())


@contextlib.contextmanager
def lock(name: str, timeout: float) -> Iterator[bool]:
    """Hold a lock file of the cache folder; False if somebody else has it, or there can be none."""
    try:
        os.makedirs(cache_folder(), mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(cache_folder(), name), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        _log("the cache cannot be used: %s", error)
        yield False
        return
    try:
        deadline = time.monotonic() + timeout
        while not (locked := _try_lock(fd)) and time.monotonic() < deadline:
            time.sleep(_LOCK_RETRY)
        yield locked
    finally:
        os.close(fd)  # which unlocks


def _try_lock(fd: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _change(change: Callable[[Cache], None]) -> None:
    with lock(_LOCK_FILE, _LOCK_TIMEOUT) as locked:
        if not locked:
            return
        cache = read_cache()
        change(cache)
        try:
            _write(cache)
        except OSError as error:
            _log("the cache cannot be written: %s", error)


def _write(cache: Cache) -> None:
    """All of it anew, and at once: whoever reads meanwhile has the old one."""
    now = int(time.time())
    for server in cache.servers.values():
        server.seen = min(server.seen, now)  # a clock that was wrong once would keep it for ever
    servers = _remembered([server for server in cache.servers.values() if server.seen >= now - MAX_AGE])
    lines = ["# usbip-capture: servers and devices that were seen; may be deleted"]
    lines += [_line("server", s.host, s.port, s.source, s.name, s.seen) for s in servers]
    size = sum(len(line.encode()) + 1 for line in lines)
    # After all servers: whatever one has listed, no other one is forgotten for it.
    for server in servers:
        for device in cache.devices.get((server.host, server.port), []):
            first = f"{clean(device.busid).replace(' ', '-')} {clean(device.vid_pid)}"
            known = [_line("device", server.host, server.port, first, device.name, device.seen)]
            for kind, text in (("serial", device.serial), ("kind", device.kind)):
                if text:
                    known.append(_line(kind, server.host, server.port, first, text, device.seen))
            size += sum(len(line.encode()) + 1 for line in known)
            if size <= MAX_BYTES:
                lines += known
    _replace(_TEMPORARY, CACHE_FILE, lines)


def _replace(name: str, target: str, lines: list[str]) -> None:
    """Have a file of these lines. Raises OSError.

    We hold the lock; what another one has left behind when it was killed is written over.
    """
    temporary = os.path.join(cache_folder(), name)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(temporary, os.path.join(cache_folder(), target))
    except BaseException:
        os.unlink(temporary)
        raise


def _remembered(servers: list[KnownServer]) -> list[KnownServer]:
    """The last ones that were there. Announcements, which anybody may send, never push out more than half."""
    servers = sorted(servers, key=lambda server: server.seen, reverse=True)
    used = [server for server in servers if server.source != "mdns"]
    announced = [server for server in servers if server.source == "mdns"]
    del announced[max(MAX_SERVERS // 2, MAX_SERVERS - len(used)) :]
    kept = {id(server) for server in [*announced, *used[: MAX_SERVERS - len(announced)]]}
    return [server for server in servers if id(server) in kept]


def _log(text: str, error: OSError) -> None:
    """Log it. `logging` is imported here only: it would double the time in which this module is imported."""
    import logging

    logging.getLogger(__name__).info(text, error)


def _line(kind: str, host: str, port: int, first: str, second: str, seen: int) -> str:
    return "\t".join([kind, clean(host)[:_MAX_NAME], str(port), first, second[:_MAX_NAME], str(seen)])
