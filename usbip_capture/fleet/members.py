"""The servers of a fleet: those that a person names, those that are configured, those that announce themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import DEFAULT_PORT, SSH, is_dashboard
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.configuration import configured, configured_dashboards, named, tokens
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.servers.known import known_dashboards
from usbip_capture.servers.mdns import DiscoveredServer


@dataclass(slots=True, frozen=True)
class Member:
    """A server: where it speaks USB/IP, and where its dashboard is; either may be missing.

    name: what it is called, perhaps by a stranger. problem: why a dashboard that it has is not asked. announced: it was
    found because it announces itself.
    """

    name: str
    server: ServerAddress | None = None
    dashboard: Dashboard | None = None
    problem: UsbipError | None = None
    announced: bool = False

    @property
    def address(self) -> str:
        """As it may be named again."""
        if self.server is not None:
            return str(self.server)
        return self.dashboard.address if self.dashboard is not None else self.name

    @property
    def key(self) -> str:
        """By what it is recognized the next time: the address of an announced one may change."""
        return f"announced {self.name}" if self.announced else self.address

    @property
    def timeout(self) -> float:
        """Seconds for connecting, and for its answers."""
        asked = self.server or self.dashboard
        return asked.timeout if asked is not None else 0.0


def named_member(word: str, port: int = DEFAULT_PORT, timeout: float = 5.0) -> Member:
    """The server that a person means by `word`: a name or an address, as `list` takes it, or that of a dashboard.

    Raises LocalProtocolError for what is not an address.
    """
    word = word.strip()
    wanted = word.lower()
    own = named(word) is not None
    listed = {name.lower() for name, _, _ in configured_dashboards()}
    known = listed | {server.name.lower() for server in known_dashboards() if server.name}
    alone = is_dashboard(wanted) or (wanted in known and not own)
    server = None if alone else ServerAddress.parse(word, port, timeout)
    signs_in = own and (wanted in known or wanted in {name.lower() for name in tokens()})
    if not alone and not signs_in:
        return Member(word, server)
    try:
        return Member(word, server, Dashboard.parse(word, timeout=timeout))
    except LocalProtocolError:
        raise
    except UsbipError as error:  # no token for it
        return Member(word, server, None, error)


def configured_members(timeout: float = 5.0) -> list[Member]:
    """Those of the configuration and the environment, each once; what cannot be used is left out."""
    names: dict[str, str] = {}
    for server in configured():
        if server.host:
            name = server.name or server.entry.strip()
            names.setdefault(name.lower(), name)
    for name, _, _ in configured_dashboards():
        names.setdefault(name.lower(), name)
    found = []
    for name in names.values():
        try:
            found.append(named_member(name, timeout=timeout))
        except LocalProtocolError as error:
            found.append(Member(name, problem=error))
    return found


def announced_members(seconds: float, timeout: float = 5.0) -> list[Member]:
    """Those that announce themselves within so many `seconds`, by name. Raises ServerUnreachable without a network."""
    from usbip_capture.servers.mdns import discover_usbip_servers

    return [_announced(server, timeout) for server in discover_usbip_servers(seconds)]


def together(members: Iterable[Member]) -> list[Member]:
    """Each server once, the first ones before others, by where they are."""
    found: dict[str, Member] = {}
    for member in members:
        found.setdefault(member.address.lower(), member)
    return list(found.values())


def never_asks(members: Iterable[Member]) -> None:
    """ssh may not ask a person anything: it would ask for many servers at a time."""
    if any(_by_ssh(member) for member in members) and threading.current_thread() is threading.main_thread():
        from usbip_capture.net.ssh import never_ask

        never_ask()


def _by_ssh(member: Member) -> bool:
    return any(place is not None and place.scheme == SSH for place in (member.server, member.dashboard))


def _announced(server: DiscoveredServer, timeout: float) -> Member:
    """Its dashboard is asked only with a token that is configured for its address: anybody may announce any name."""
    host, port = server.places[0]
    made = Member(server.name, ServerAddress.at(host, port, timeout), announced=True)
    for place in server.dashboards:
        try:
            return replace(made, dashboard=Dashboard.at(*place, timeout=timeout))
        except UsbipError:  # no token for it
            continue
    return made
