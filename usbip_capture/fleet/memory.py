"""What a fleet had the last time, in a file of the cache: what of it is not there now is missing.

A device is remembered until it is there again, is found at another port or server, was not seen for a month, or its
owner accepts that it is not there. Whatever is in the file, nothing here raises.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from usbip_capture.fleet.answers import MAX_TEXT, FleetAnswer, FleetDevice, entries, number, text
from usbip_capture.fleet.members import Member
from usbip_capture.servers.memory import FLEET_FILE, FLEET_LOCK_FILE, MAX_AGE, lock
from usbip_capture.system.folders import cache_folder
from usbip_capture.system.replacement import Replacement

log = logging.getLogger(__name__)

#: Servers and devices that are remembered, and bytes of the file: more are neither written nor read.
MAX_SERVERS, MAX_DEVICES, MAX_BYTES = 1024, 20_000, 16 << 20
_LOCK_TIMEOUT = 1.0


@dataclass(slots=True, frozen=True)
class Remembered:
    """A device as it was last there. seen: when, in seconds since 1970."""

    busid: str
    vid_pid: str
    product: str
    serial: str
    seen: int

    @property
    def identity(self) -> tuple[str, str]:
        """Where it was plugged in, and what it is."""
        return self.busid, self.vid_pid


@dataclass(slots=True)
class RememberedServer:
    """A server as it last answered. announced: it was found as it announced itself."""

    name: str
    announced: bool = False
    seen: int = 0
    devices: list[Remembered] = field(default_factory=list)


@dataclass(slots=True)
class Missing:
    """What is not there now. by_key: devices, by the server's `Member.key`; servers: they do not announce themselves
    any more."""

    by_key: dict[str, list[Remembered]] = field(default_factory=dict)
    servers: list[RememberedServer] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Of devices and servers."""
        return sum(map(len, self.by_key.values())) + len(self.servers)


class FleetMemory:
    """What was there by `Member.key`. Read it by `read_memory`; `compare` with what answers now, then `write`."""

    def __init__(self, servers: dict[str, RememberedServer] | None = None) -> None:
        self.servers = servers or {}

    def compare(self, answers: Sequence[FleetAnswer], now: int, announced: AbstractSet[str] | None = None) -> Missing:
        """What is missing; from now on `answers` are what was there, beside it.

        announced: keys of all servers that announce themselves now; None if nobody has looked for them.
        """
        elsewhere = {moved for answer in answers for moved in self._new(answer)}
        missing = Missing()
        for answer in answers:
            if answer.error is None:
                lost = self._compare_one(answer, now, elsewhere)
                if lost:
                    missing.by_key[answer.member.key] = lost
        if announced is not None:
            missing.servers = [
                server for key, server in self.servers.items() if server.announced and key not in announced
            ]
        return missing

    def known(self, member: Member) -> RememberedServer | None:
        """A server as it last answered."""
        return self.servers.get(member.key)

    def accept(self, missing: Missing) -> None:
        """What is missing is not expected any more."""
        for key, devices in missing.by_key.items():
            server = self.servers[key]
            server.devices = [device for device in server.devices if device not in devices]
        self.servers = {key: server for key, server in self.servers.items() if server not in missing.servers}

    def _new(self, answer: FleetAnswer) -> Iterator[tuple[str, str]]:
        """What it is and its serial number, of each device that was not there: clones may share a number."""
        before = self.servers.get(answer.member.key)
        known = {device.identity for device in before.devices} if before is not None else set()
        for device in answer.devices:
            if device.serial and device.identity not in known:
                yield device.vid_pid, device.serial

    def _compare_one(self, answer: FleetAnswer, now: int, elsewhere: set[tuple[str, str]]) -> list[Remembered]:
        before = self.servers.get(answer.member.key)
        here = {device.identity for device in answer.devices}
        lost = [
            device
            for device in (before.devices if before is not None else ())
            if device.identity not in here
            and (device.vid_pid, device.serial) not in elsewhere
            and now - device.seen < MAX_AGE
        ]
        self.servers[answer.member.key] = RememberedServer(
            answer.member.name, answer.member.announced, now, [*(_remembered(d, now) for d in answer.devices), *lost]
        )
        return lost


def read_memory() -> FleetMemory:
    """What is in the file; nothing of what cannot be understood."""
    try:
        with open(_path(), "rb") as file:
            loaded = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return FleetMemory()
    servers = loaded.get("servers") if isinstance(loaded, dict) else None
    made: dict[str, RememberedServer] = {}
    for key, entry in list(servers.items())[:MAX_SERVERS] if isinstance(servers, dict) else ():
        if isinstance(entry, dict):
            devices = [_device(one) for one in entries(entry, "devices")]
            made[key] = RememberedServer(
                text(entry, "name"), entry.get("announced") is True, number(entry, "seen"), devices
            )
    return FleetMemory(made)


def write_memory(memory: FleetMemory, changed: Iterable[str], forgotten: Iterable[str] = ()) -> None:
    """Replace in the file the servers whose keys these are; what other programs have written meanwhile stays."""
    with lock(FLEET_LOCK_FILE, _LOCK_TIMEOUT) as locked:
        if not locked:
            return
        servers = read_memory().servers
        servers.update({key: memory.servers[key] for key in changed if key in memory.servers})
        for key in forgotten:
            servers.pop(key, None)
        recent = [item for item in servers.items() if time.time() - item[1].seen < MAX_AGE]
        kept = sorted(recent, key=lambda item: item[1].seen, reverse=True)[:MAX_SERVERS]
        try:
            with Replacement(_path()) as file:
                file.write(json.dumps({"servers": dict(_data(kept))}).encode())
        except OSError as error:
            log.warning("what the fleet had cannot be remembered: %s", error.strerror or error)


def _data(servers: list[tuple[str, RememberedServer]]) -> Iterable[tuple[str, Mapping[str, object]]]:
    room = MAX_DEVICES
    for key, server in servers:
        devices = [
            {"busid": d.busid, "vid_pid": d.vid_pid, "product": d.product, "serial": d.serial, "seen": d.seen}
            for d in server.devices[:room]
        ]
        room -= len(devices)
        yield key, {"name": server.name, "announced": server.announced, "seen": server.seen, "devices": devices}


def _remembered(device: FleetDevice, now: int) -> Remembered:
    return Remembered(device.busid, device.vid_pid, device.product[:MAX_TEXT], device.serial, now)


def _device(entry: Mapping[str, object]) -> Remembered:
    return Remembered(
        text(entry, "busid"), text(entry, "vid_pid"), text(entry, "product"), text(entry, "serial"),
        number(entry, "seen"),
    )  # fmt: skip


def _path() -> str:
    return os.path.join(cache_folder(), FLEET_FILE)
