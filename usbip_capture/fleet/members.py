"""The servers of a fleet: those that a person names, those that are configured, those that announce themselves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import DEFAULT_PORT, SSH, is_dashboard, usual_port
from usbip_capture.servers.address import DEMO, LOCAL, ServerAddress
from usbip_capture.servers.configuration import ConfiguredServer, configured, configured_dashboards, tokens
from usbip_capture.servers.dashboards import TOKEN_VARIABLE, Dashboard
from usbip_capture.servers.known import known_dashboards
from usbip_capture.servers.mdns import DiscoveredServer


@dataclass(slots=True, frozen=True)
class Member:
    """A server: where it speaks USB/IP, and where its dashboard is; either may be missing.

    name: what it is called, perhaps by a stranger. problem: why a dashboard that it has is not asked. announced: it was
    found because it announces itself. place: of labgrid, or the resource, that it is part of; empty if of none.
    """

    name: str
    server: ServerAddress | None = None
    dashboard: Dashboard | None = None
    problem: UsbipError | None = None
    announced: bool = False
    place: str = ""

    @property
    def address(self) -> str:
        """As it may be named again."""
        if self.server is not None:
            return str(self.server)
        return self.dashboard.address if self.dashboard is not None else self.name

    @property
    def key(self) -> str:
        """By what it is recognized the next time: the address of an announced one, or of a place, may change."""
        if self.place:
            return f"labgrid {self.place}"
        return f"announced {self.name}" if self.announced else self.address

    @property
    def timeout(self) -> float:
        """Seconds for connecting, and for its answers."""
        asked = self.server or self.dashboard
        return asked.timeout if asked is not None else 0.0


class Directory:
    """Servers and dashboards by name, as the configuration, the environment and the cache have them now."""

    def __init__(self) -> None:
        self._servers: dict[str, ConfiguredServer] = {}
        for server in configured():
            if server.host:
                self._servers.setdefault((server.name or server.entry.strip()).lower(), server)
        self._dashboards = {name.lower(): (name, host, port) for name, host, port in configured_dashboards()}
        self._announced = {known.name.lower(): known for known in known_dashboards() if known.name}
        self._tokens = {name.lower() for name in tokens()}

    def member(self, word: str, port: int = DEFAULT_PORT, timeout: float = 5.0) -> Member:
        """The server that a person means by `word`: a name or an address, as `list` takes it, or that of a dashboard.

        port: where `word` has none. Raises LocalProtocolError for what is not an address.
        """
        word = word.strip()
        wanted = word.lower()
        own = self._servers.get(wanted)
        alone = own is None and (is_dashboard(wanted) or wanted in self._dashboards or wanted in self._announced)
        server = None if alone else _server(word, own, port, timeout)
        try:
            return Member(word, server, self._dashboard(word, alone=alone, own=own is not None, timeout=timeout))
        except LocalProtocolError:
            raise
        except UsbipError as error:  # no token for it
            return Member(word, server, None, error)

    def members(self, timeout: float = 5.0) -> list[Member]:
        """All that are configured, each once; what cannot be used is left out."""
        names = {key: server.name or server.entry.strip() for key, server in self._servers.items()}
        for key, (name, _, _) in self._dashboards.items():
            names.setdefault(key, name)
        found = []
        for name in names.values():
            try:
                found.append(self.member(name, timeout=timeout))
            except LocalProtocolError as error:
                found.append(Member(name, problem=error))
        return found

    def _dashboard(self, word: str, *, alone: bool, own: bool, timeout: float) -> Dashboard | None:
        """None if nothing is known of one. Raises UsbipError: no token for it."""
        wanted = word.lower()
        token = os.environ.get(TOKEN_VARIABLE, "")
        if wanted in self._dashboards:
            name, host, port = self._dashboards[wanted]
            return Dashboard.at(host, port, name=name, token=token, timeout=timeout)
        if wanted in self._announced:
            return Dashboard.known(self._announced[wanted], timeout=timeout)
        if alone or (own and wanted in self._tokens):
            return Dashboard.parse(word, timeout=timeout)
        return None


def _server(word: str, own: ConfiguredServer | None, port: int, timeout: float) -> ServerAddress:
    """As `ServerAddress.parse` has it; own: as it is configured. Raises LocalProtocolError."""
    if own is None or port != DEFAULT_PORT or own.host.lower() in (DEMO, LOCAL):
        return ServerAddress.parse(word, port, timeout)
    return ServerAddress.at(own.host, own.port or usual_port(own.host), timeout)


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
