"""A server that is started again in place: in its process, by what the configuration has then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.ruling import check_lets_in
from usbip_capture.server.rules import Rules
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.server_table import ServerTable, read_server_table
from usbip_capture.serving.local_server import LocalServer
from usbip_capture.serving.places import listen_places
from usbip_capture.serving.rules_in_force import RulesInForce

log = logging.getLogger(__name__)


class Restart:
    """Between who runs a server, on one thread, and who asks for its restart, on any other.

    settings: what it would be started with now; raises UsbipError. start: starts it; raises UsbipError. given: what of
    that the command line has, by the names of `ServerTable`: the configuration does not change it.
    """

    def __init__(
        self,
        settings: Callable[[], ServerTable],
        start: Callable[[ServerTable], LocalServer] = LocalServer,
        given: Iterable[str] = (),
    ) -> None:
        self.given = frozenset(given)
        self._settings = settings
        self._start = start
        self._requested = threading.Event()
        self._running: ServerTable | None = None

    @property
    def running(self) -> ServerTable | None:
        """What the server that runs was started with."""
        return self._running

    def check(self) -> None:
        """Raises UsbipError if the server would not start with what is configured now."""
        check_settings(self._settings())

    def request(self) -> None:
        """Have the server ended and started again, by who runs it."""
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether the server that runs is to end for a restart."""
        return self._requested.is_set()

    def start(self) -> tuple[LocalServer, ServerTable]:
        """The server, and what it was started with: as it was before where a restart fails, which is logged.

        Raises UsbipError at the first start, and where the settings of before fail, too.
        """
        self._requested.clear()
        before = self._running
        try:
            wanted = self._settings()
            server = self._start(wanted)
        except UsbipError as error:
            if before is None:
                raise
            log.error("the server does not start as it is configured now: %s; it goes on as before", error)
            wanted, server = before, self._start(before)
        self._running, server.restart = wanted, self
        return server, wanted


def check_settings(settings: ServerTable) -> None:
    """Raises UsbipError for what a server would not start with, as far as that can be known before."""
    table = read_server_table() if settings.exports is None else settings
    if table.exports is None:
        raise LocalProtocolError(
            f"nothing is to be exported: write exports, empty perhaps, into {configuration_path()}"
        )
    Rules(table.exports)
    if settings.rotate and not settings.pcap:
        raise LocalProtocolError("rotate is for files: name one with pcap")
    if settings.client_ca and not settings.tls:
        raise LocalProtocolError("client-ca is for connections within TLS: add tls")
    rules = RulesInForce(settings, table, nullcontext(), lambda: False, lambda rules: None).in_force
    for place in listen_places(settings):
        check_lets_in(*place, rules, ", or --allow-public if everybody may")
    if settings.tls:  # who serves without it does without `ssl`
        from usbip_capture.serving.tls_side import tls_place

        for text in settings.tls:
            tls_place(text)
