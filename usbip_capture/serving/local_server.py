"""A server of this machine's own devices, as the command `serve` and other programs use it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from usbip_capture.access.rules import AccessRules
from usbip_capture.control_socket.serving import ControlSocket
from usbip_capture.errors import CannotListen, CaptureError, LocalProtocolError, UsbipError
from usbip_capture.lending.lender import Exported, Lender
from usbip_capture.lending.plugged import Bus
from usbip_capture.lending.restore import restore_and_log
from usbip_capture.net.address import format_address
from usbip_capture.server.client import Client
from usbip_capture.server.events import ACCESS_CHANGED, STARTED, Events
from usbip_capture.server.exporter import Server
from usbip_capture.server.figures import Figures
from usbip_capture.server.rules import ExportRule, Rules
from usbip_capture.servers.configuration import SERVER_TABLE, configuration_path
from usbip_capture.servers.server_table import ServerTable, read_server_table
from usbip_capture.serving.access import RuledAccess
from usbip_capture.serving.announced import Announcing
from usbip_capture.serving.audit import Audit
from usbip_capture.serving.control import handlers_for
from usbip_capture.serving.event_history import EventHistory
from usbip_capture.serving.following import FollowedFile, Trouble
from usbip_capture.serving.fronts import Front, opened_dashboard
from usbip_capture.serving.hooks import Hooks
from usbip_capture.serving.leases import DeviceLeases
from usbip_capture.serving.observing import Observing
from usbip_capture.serving.operations import Operations
from usbip_capture.serving.places import listen_places
from usbip_capture.serving.ports import Ports
from usbip_capture.serving.rules_in_force import RulesInForce, summary
from usbip_capture.serving.watchdog import Watchdog
from usbip_capture.syslog.severity import NOTICE
from usbip_capture.usb.info import DeviceInfo

if TYPE_CHECKING:
    from usbip_capture.serving.capture_store import CaptureStore
    from usbip_capture.serving.restarting import Restart
    from usbip_capture.serving.sessions import Sessions
    from usbip_capture.serving.tls_side import TlsSide

log = logging.getLogger(__name__)


class LocalServer:
    """This machine's devices, lent to USB/IP clients until `close`, or to the end of its `with` block.

    Made by `serve`, where the errors are. settings: as the configuration has them; without `exports`, those of
    the configuration file are exported, and its changes are followed; so it is with `rules`, of access. bus: where the
    devices are, None for all buses of this machine. access: who may have which device, and changing that.
    leases: reserve devices there, and release them. operations: what else can be done while it runs. tls: where it
    listens for TLS, and pairing; None if it does not. dashboard: where browsers find it; None without one. restart: by
    which it may be started again; None where only the program that runs it can do that.
    """

    def __init__(
        self,
        settings: ServerTable,
        bus: Bus | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.name = settings.name or socket.gethostname()
        self._listening: list[tuple[str, int]] = []
        self._unix = os.path.abspath(settings.unix) if settings.unix else ""
        self._follows = settings.exports is None
        self._on_change = on_change
        self._changing = threading.RLock()  # held from reading what is exported to changing it
        self._trouble = Trouble(log)
        self._stack = ExitStack()
        self.events = Events()
        self.tls: TlsSide | None = None
        self.dashboard: Front | None = None
        self.restart: Restart | None = None
        self._announcing = Announcing(self.name, lambda: self._lender.exported)
        with ExitStack() as starting:
            starting.callback(self.close)
            self._start(settings, bus)
            starting.pop_all()

    @property
    def address(self) -> str:
        """Where it listens, as clients of ours take it: HOST, HOST:PORT or [IPv6]:PORT; the first of several."""
        return format_address(*self._listening[0]) if self._listening else ""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and ports where it listens."""
        return list(self._listening)

    @property
    def unix(self) -> str:
        """The path of its Unix socket, empty if it has none."""
        return self._unix

    @property
    def devices(self) -> list[DeviceInfo]:
        """What is exported now, also while a client has it."""
        return [exported.info for exported in self._lender.exported]

    @property
    def exported(self) -> list[Exported]:
        """The same, with what is known of each, and the rule by which it is exported."""
        return self._lender.exported

    @property
    def follows(self) -> bool:
        """Whether changes of the configuration are followed: nothing else was asked for."""
        return self._follows

    @property
    def clients(self) -> list[Client]:
        """Who is connected, since when, and with which device; the longest connected first."""
        return self._server.clients

    @property
    def rules(self) -> list[str]:
        """What is to be exported."""
        return [str(rule) for rule in self._lender.rules]

    @property
    def captures(self) -> CaptureStore | None:
        """Those that are begun while it runs; None without a dashboard, or a folder to keep them in."""
        return self._observing.store

    @property
    def sessions(self) -> Sessions | None:
        """What clients do, for who likes to see it; None without a dashboard."""
        return self._observing.sessions

    def set_rules(self, rules: Iterable[str]) -> None:
        """Export by these from now on; who has a device that is not exported any more loses it.

        Raises LocalProtocolError for what is not a rule; then nothing changes.
        """
        with self._changing:
            self._lender.set_rules(Rules(rules, force=self._lender.rules.force))

    def add_rule(self, rule: str) -> None:
        """Export by this one, too. Raises LocalProtocolError."""
        parsed = ExportRule.parse(rule)
        with self._changing:
            self._lender.set_rules(self._lender.rules.with_rule(parsed))

    def remove_rule(self, rule: str) -> bool:
        """Export by it no more; False if it is not among them. Raises LocalProtocolError."""
        parsed = ExportRule.parse(rule)
        with self._changing:
            rules = self._lender.rules
            self._lender.set_rules(rules.without_rule(parsed))
        return parsed in rules

    def disconnect(self, busid: str) -> bool:
        """End the client that has this device, which stays exported; False if nobody has it."""
        return self._server.disconnect(busid)

    def reset(self, busid: str) -> None:
        """Reset an exported device, whether a client has it or not. Raises UsbipError."""
        self._ports.reset(busid)

    def switch_power(self, busid: str, action: str) -> None:
        """Switch the power of a device's port: off, on, or cycle. Raises UsbipError: its hub cannot do that."""
        self._ports.switch_power(busid, action)

    def reload(self) -> bool:
        """Export what the configuration has now, to whom it has; False if it cannot be read, or was not asked for.

        What cannot be read is logged, and all stays as it was before.
        """
        if not self._follows and not self.access.follows:
            return False
        with self._changing:
            try:
                table = read_server_table()
            except UsbipError as error:
                self._trouble.log(f"{error}; what was exported before still is, to whom it was")
                return False
            self._trouble.over()
            self.access.follow(table)
            if not self._follows:
                return True
            rules = Rules(table.exports or (), force=table.force or self._force)
            if rules != self._lender.rules:
                log.info("exports are now: %s", ", ".join(map(str, rules)) or "none")
                self._lender.set_rules(rules)
        return True

    def close(self) -> None:
        """Disconnect all clients and release all devices. May be called again.

        Raises CaptureError, the first time, if a capture has failed.
        """
        self._stack.close()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CaptureError:
            if kind is None:  # else it would hide what has gone wrong first
                raise

    def _start(self, settings: ServerTable, bus: Bus | None) -> None:
        self._force = settings.force
        table = read_server_table() if settings.exports is None else settings
        if table.exports is None:
            raise UsbipError(
                "nothing is to be exported: name devices, such as 1-1.4 or 303a:4001 (see `usbip-capture local`), a "
                f'class or all, or write exports = ["1-1.4"] under [{SERVER_TABLE}] in {configuration_path()}'
            )
        rules = Rules(table.exports, force=table.force or settings.force)
        access = self._ruled(settings, table)
        places = listen_places(settings)
        for place in places:
            access.check_listening(*place)
        restore_and_log()
        self._report_events(settings)
        self.leases = DeviceLeases(self.events)
        self._stack.callback(self.leases.close)
        where = format_address(*places[0]) if places else settings.unix
        self._observing = Observing(settings, where, self.name, self.events, self._client_of)
        self._stack.callback(self._observing.close)  # after the sessions, whose end is captured
        self._server = Server(access, self.events, settings.limits, Figures() if settings.web else None)
        self._stack.callback(self._announcing.close)  # after the devices: the network may take its time
        self._stack.callback(self._server.close)
        if settings.unix:
            self._server.listen_unix(settings.unix)
        for place in places:
            self._listening.append(self._server.listen(*place))
        self._listen_tls(settings)
        bus = bus or _shared_bus()
        self._lend(settings, rules, bus)
        self.leases.start(self._server.check_sessions)
        self._follow()
        self._ports = Ports(self._lender, bus)
        self.operations = Operations(self._server, self._lender, self._ports, bus)
        self._stack.callback(Watchdog(self._server, self._lender, bus).close)
        self._take_commands()
        if settings.web:
            self.dashboard = opened_dashboard(self, settings)
            self._stack.callback(self.dashboard.close)
        within_tls = [] if self.tls is None else self.tls.addresses
        self._announcing.start(self._listening, within_tls, settings.announce, self.dashboard)
        self._report_start(settings.unix)

    def _report_events(self, settings: ServerTable) -> None:
        """Have them kept, written, and hooks called: until after all others, whose end is reported, too."""
        if settings.web:
            self._stack.callback(EventHistory(self.events, self.name).close)
        self.audit = Audit(self.events, settings.audit, settings.audit_syslog)
        self._stack.callback(self.audit.close)
        self._stack.callback(Hooks(self.events, self.name, settings.hooks).close)

    def _report_start(self, unix: str) -> None:
        within_tls = [] if self.tls is None else self.tls.addresses
        where = [format_address(*place) for place in (*self._listening, *within_tls)] + ([unix] if unix else [])
        self.events.emit(STARTED, NOTICE, text=", ".join(where))

    def _listen_tls(self, settings: ServerTable) -> None:
        if settings.client_ca and not settings.tls:
            raise LocalProtocolError("client-ca is for connections within TLS: add tls")
        if settings.tls:  # who serves without it does without `ssl`
            from usbip_capture.serving.tls_side import TlsSide, tls_place

            places = [tls_place(text) for text in settings.tls]
            self.tls = TlsSide(self._server, places, settings.client_ca, self.access.allow_paired)
            self._stack.callback(self.tls.close)

    def _lend(self, settings: ServerTable, rules: Rules, bus: Bus) -> None:
        self._lender = Lender(
            self._server,
            bus,
            rules,
            max_devices=settings.max_devices,
            reset=settings.reset,
            observed=self._observing.observed,
            on_change=self._changed,
        )
        self._stack.callback(self._lender.close)  # before the server: nothing is imported any more

    def _ruled(self, settings: ServerTable, table: ServerTable) -> RuledAccess:
        self.access = RulesInForce(settings, table, self._changing, self.reload, self._access_changed)
        return RuledAccess(
            lambda: self.access.in_force,
            lambda busid: self._server.ruled(busid),  # noqa: PLW0108  it is made with this
            is_paired=lambda name: name in self.access.paired,
            reserved=lambda peer, info: self.leases.decision(peer, info),  # noqa: PLW0108  as above
        )

    def _access_changed(self, rules: AccessRules) -> None:
        self.events.emit(ACCESS_CHANGED, NOTICE, text=summary(rules), by="user")
        self._server.check_sessions("user")

    def _follow(self) -> None:
        if self._follows or self.access.follows:
            self._stack.callback(FollowedFile(configuration_path(), self.reload).close)
            self.reload()  # it may have changed since it was read

    def _take_commands(self) -> None:
        """From the commands `clients`, `kick` and so on. Devices are lent all the same if that cannot be."""
        try:
            control = ControlSocket(self.name, handlers_for(self, self._lender, self._ports), listen=self.address)
        except CannotListen as error:
            log.warning("%s", error)
        else:
            self._stack.callback(control.close)
        self._stack.callback(self._ports.close)  # before that: it waits for requests in progress

    def _client_of(self, busid: str) -> str:
        return next((str(client.peer) for client in self._server.clients if client.busid == busid), "")

    def _changed(self) -> None:
        self._announcing.update()
        if self._on_change is not None:
            self._on_change()


def serve(
    devices: Iterable[str] | None = None,
    *,
    listen: Iterable[str] = (),
    unix: str = "", name: str = "",
    allow: Iterable[str] = (), allow_public: bool = False,
    rules: Iterable[str] | None = None,
    max_clients: int = 0, max_devices: int = 0,
    pcap: str | os.PathLike[str] = "", rotate: Iterable[str] = (),
    reset: bool = True, force: bool = False, announce: bool | None = None,
    audit: str | os.PathLike[str] = "", audit_syslog: str = "",
    tls: Iterable[str] = (), client_ca: str | os.PathLike[str] = "",
    web: Iterable[str] = (), web_tls: bool = False, web_host: Iterable[str] = (),
    captures: str | os.PathLike[str] = "", hooks: Iterable[str] = (), bus: Bus | None = None,
    **limits: int,
) -> LocalServer:  # fmt: skip
    """Lend this machine's USB devices to USB/IP clients, as `usbip-capture serve` does; ends with `close`.

    devices: rules of what is exported: a port such as `1-1.4`, `VID:PID`, `VID:PID:SERIAL`, `class:03`, or `all`; None
    exports what the configuration has, and follows its changes. Devices that are plugged in later are exported, too.
    listen: addresses, ADDR or ADDR:PORT (port 0 chooses one); none is 127.0.0.1, unless `unix` names a socket.
    allow: networks, such as `192.0.2.0/24`, whose machines may connect; needed beyond loopback, unless allow_public.
    rules: of access, such as `deny any 303a:4001`; None: those of the configuration, if it has the devices.
    max_clients, max_devices: at a time, 0 without limit. pcap: a file for all sessions, rotate: how it is divided, as
    `-b` of `usbip-capture capture` has it. reset: each device when a client has released it. force: `all` and classes
    export disks in use, too. announce: by mDNS, as `name`; None: where other machines can connect. audit: a
    file for what happens, a line of JSON each, `-` for standard output; audit_syslog: `HOST[:PORT]`, `tcp:HOST[:PORT]`
    or a path such as `/dev/log`. tls: addresses for connections within TLS, port 3241 if none is given; client_ca: a
    file of authorities, whose certificates prove who a client is. web: addresses of the dashboard, port 8080 if none is
    given; web_tls: within TLS; web_host: further names by which browsers may call it. captures: a
    folder for those begun there; hooks: what is called, such as `attach=/usr/bin/notify`. limits: captures_size, MB for
    captures, and those of `access.limits.Limits`.

    Raises LocalProtocolError for what cannot be meant, LibusbMissing, CannotListen, CaptureError, UsbipError.
    """
    return LocalServer(_settings(**locals()), bus)


def _settings(devices: Iterable[str] | None, rules: Iterable[str] | None, **given: Any) -> ServerTable:
    """Of what `serve` has been given: one text stands for a list of one, a path for its text."""
    limits = given.pop("limits")
    del given["bus"]
    kinds = {field.name: str(field.type) for field in fields(ServerTable)}
    values: dict[str, Any] = {"exports": devices, "rules": rules, **given}
    for name, value in values.items():
        if kinds[name].startswith("tuple") and value is not None:
            values[name] = (value,) if isinstance(value, str) else tuple(value)
        elif kinds[name] == "str":
            values[name] = os.fspath(value)
    if devices is not None and rules is None:
        values["rules"] = ()  # of access: none, and those of the configuration are not meant
    return ServerTable(**values, access="", **limits)


def _shared_bus() -> Bus:
    from usbip_capture.devices.libusb.bus import LocalBus

    return LocalBus.shared()
