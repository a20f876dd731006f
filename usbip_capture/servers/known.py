"""Which servers are known, from the environment, the configuration file and the cache: read only, no network.

Wireshark waits for this at each of its starts, so that nothing is imported but `os`, and nothing here ever raises.
The files are read by people and by every version of this program: lines of text, and a line that means nothing is
passed over.
"""

from __future__ import annotations

import os

from usbip_capture.net.address import format_address, is_dashboard, usual_port
from usbip_capture.servers.configuration import CONFIGURATION, LOCAL, configured, configured_dashboards
from usbip_capture.system.folders import cache_folder

CACHE_FILE = "servers"
#: Of the refresher: touched when it is started; locked while it runs.
STAMP_FILE = "refreshed"
REFRESHER_LOCK_FILE = "refresher.lock"
#: No file of ours is ever longer: no more is read, and no more is written.
MAX_BYTES = 256 << 10
#: Servers and places that have an interface in Wireshark, which asks about each at each start: others are typed.
MAX_LISTED = 16
_MAX_DIGITS = 12
_SLUG = "abcdefghijklmnopqrstuvwxyz0123456789.-"
_SLUG_LENGTH = 40
_INTERFACE_PREFIX = "usbip-"
_TAKEN = "usbip_remote"


#: The source of a configured dashboard.
DASHBOARD = f"{CONFIGURATION}, dashboard"


class KnownServer:
    """A server. source: that of `configuration`, or `used` or `mdns`, or DASHBOARD. seen: when it last was there,
    epoch seconds.

    host: with its scheme, if it has one, as in `tls://pi`, so that a server is another one by another way.
    interface: the name of its Wireshark interface, set by `known_servers`.
    """

    __slots__ = ("host", "interface", "name", "port", "seen", "source")

    def __init__(self, host: str, port: int, name: str = "", source: str = "", seen: int = 0) -> None:
        self.host = host
        self.port = port
        self.name = name
        self.source = source
        self.seen = seen
        self.interface = ""

    @property
    def is_dashboard(self) -> bool:
        """Whether what others do at a server is joined there, instead of its devices being imported."""
        return self.source == DASHBOARD or is_dashboard(self.host)

    @property
    def address(self) -> str:
        """HOST, or HOST:PORT where it is not the usual one: as `ServerAddress.parse` takes it."""
        return format_address(self.host, self.port)

    @property
    def display(self) -> str:
        """As Wireshark lists it."""
        if self.is_dashboard:
            return f"USB/IP server: {self.name} ({self.address})" if self.name else f"USB/IP server: {self.address}"
        where = f"{self.host}:{self.port}" if ":" not in self.host else f"[{self.host}]:{self.port}"
        where = self.address if "://" in self.host else where
        named = self.name and self.name != self.host
        if self.host == LOCAL:
            return f"USB of this machine: {self.name}" if named else "USB of this machine"
        return f"USB/IP remote: {self.name} ({where})" if named else f"USB/IP remote: {where}"


class KnownDevice:
    """A device as it was last seen on a server.

    name and serial: what it calls itself and its serial number, empty if nobody has asked it. kind: its classes.
    """

    __slots__ = ("busid", "kind", "name", "seen", "serial", "vid_pid")

    def __init__(
        self, busid: str, vid_pid: str, name: str = "", seen: int = 0, serial: str = "", kind: str = ""
    ) -> None:
        self.busid = busid
        self.vid_pid = vid_pid
        self.name = name
        self.seen = seen
        self.serial = serial
        self.kind = kind


class Cache:
    """What was remembered: servers, and the last listing of each, by (host, port)."""

    def __init__(self) -> None:
        self.servers: dict[tuple[str, int], KnownServer] = {}
        self.devices: dict[tuple[str, int], list[KnownDevice]] = {}


def listed(known: list[KnownServer], places: int = 0) -> list[KnownServer]:
    """Those of them that Wireshark lists beside so many places: each kind has half of the room, if it needs that."""
    room = MAX_LISTED - min(places, max(MAX_LISTED // 2, MAX_LISTED - len(known)))
    servers = [server for server in known if not server.is_dashboard]
    dashboards = [server for server in known if server.is_dashboard]
    del dashboards[max(room // 2, room - len(servers)) :]
    return servers[: room - len(dashboards)] + dashboards


def known_servers() -> list[KnownServer]:
    """Each server once, the configured ones first; each has its interface name."""
    return [server for server in all_known() if not server.is_dashboard]


def known_dashboards() -> list[KnownServer]:
    """The same, of servers whose dashboard is known."""
    return [server for server in all_known() if server.is_dashboard]


def all_known() -> list[KnownServer]:
    """Both, in the order in which they are looked at."""
    found: dict[tuple[str, int, bool], KnownServer] = {}
    for server in [*_configured(), *read_cache().servers.values(), *_dashboards()]:
        known = found.setdefault((server.host, server.port, server.is_dashboard), server)
        known.name = known.name or server.name
    taken = {_TAKEN}
    for server in found.values():
        server.interface = _interface(server, taken)
    return list(found.values())


def find_interface(name: str) -> KnownServer | None:
    """The server behind a Wireshark interface."""
    return next((server for server in all_known() if server.interface == name), None)


def read_cache() -> Cache:
    """What was remembered; nothing if it cannot be read."""
    cache = Cache()
    for line in read_lines(os.path.join(cache_folder(), CACHE_FILE)):
        fields = line.split("\t")
        if len(fields) != 6 or not _is_number(fields[2]) or not _is_number(fields[5]):
            continue
        kind, host, port, first, second, seen = fields
        key = host, int(port)
        if not host or not 0 < key[1] < 65536:
            continue
        if kind == "server":
            cache.servers[key] = KnownServer(*key, second, first, int(seen))
        elif kind == "device":
            busid, _, vid_pid = first.partition(" ")
            cache.devices.setdefault(key, []).append(KnownDevice(busid, vid_pid, second, int(seen)))
        elif kind in ("serial", "kind") and cache.devices.get(key):  # of the device before it, unknown to old versions
            setattr(cache.devices[key][-1], kind, second)
    return cache


def clean(text: str) -> str:
    """`text` on one line, without what separates fields."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _configured() -> list[KnownServer]:
    return [
        KnownServer(server.host, server.port or usual_port(server.host), server.name, server.source)
        for server in configured()
        if server.host
    ]


def _dashboards() -> list[KnownServer]:
    return [KnownServer(host, port, name, DASHBOARD) for name, host, port in configured_dashboards()]


def read_lines(path: str) -> list[str]:
    """Of a file in the cache; none if it cannot be read."""
    try:
        # Not blocking: who puts a named pipe there must not stop Wireshark.
        with open(path, "rb", opener=_without_blocking) as file:
            return (file.read(MAX_BYTES) or b"").decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return []


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _interface(server: KnownServer, taken: set[str]) -> str:
    """A name of few characters, so that no version of Wireshark stumbles, and no two have the same preferences."""
    text = server.name or server.host.replace("://", "-")
    if server.is_dashboard:
        text = f"server-{text}"
    elif server.name and server.source == "mdns" and "://" in server.host:  # beside the same one without
        text = f"{server.host.partition(':')[0]}-{text}"
    if server.port != usual_port(server.host) and not server.name:
        text += f"-{server.port}"
    return unique_interface(text, f"{server.host}:{server.port}", taken)


def unique_interface(text: str, identity: str, taken: set[str]) -> str:
    """The name of an interface that is called so. identity: of what it is; taken: see `preference`, one more after."""
    slug = text.lower()
    if slug.strip(_SLUG):  # there is something else in it
        slug = "".join(c if c in _SLUG else "-" for c in slug)
    slug = slug.removeprefix(_INTERFACE_PREFIX)
    name = _INTERFACE_PREFIX + (slug[:_SLUG_LENGTH].strip("-.") or "server")
    if preference(name) in taken:
        checksum = 0
        for character in identity:
            checksum = (checksum * 31 + ord(character)) & 0xFFFF
        name += f"-{checksum:04x}"
    while preference(name) in taken:
        name += "x"
    taken.add(preference(name))
    return name


def preference(name: str) -> str:
    """As Wireshark makes a preference of a name that `unique_interface` has made."""
    return name.replace("-", "_").replace(".", "_")
