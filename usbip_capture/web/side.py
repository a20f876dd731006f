"""What the web side is made of: everything that a request asks, it asks here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usbip_capture.errors import UsbipError
from usbip_capture.server.events import TOKEN_ADDED, TOKEN_REMOVED
from usbip_capture.syslog.severity import NOTICE
from usbip_capture.web.capture_data import capture_data
from usbip_capture.web.confirming import Confirmations
from usbip_capture.web.history import History
from usbip_capture.web.live_figures import LiveFigures
from usbip_capture.web.pace import Pace
from usbip_capture.web.places import Places
from usbip_capture.web.seed_data import SeedView
from usbip_capture.web.shared_streams import SharedStreams
from usbip_capture.web.tokens import Tokens

if TYPE_CHECKING:
    from usbip_capture.serving.local_server import LocalServer
    from usbip_capture.serving.restarting import Restart
    from usbip_capture.web.event_feed import EventFeed
    from usbip_capture.web.sign_in import SignIn

#: Streams that begin in a second, after so many at once: more would be felt by those who use devices.
_JOIN_RATE, _JOINS_AT_ONCE = 10.0, 32


@dataclass(slots=True)
class WebSide:
    """server: whose dashboard it is. sign_in, feed: None until it is opened.

    started: seconds since 1970. history, live: from `start_figures` on. streams, views: captures that leave as streams
    now, and pages that look into one; shared: what these streams have in common; joins: how fast streams begin.
    """

    server: LocalServer
    tokens: Tokens = field(default_factory=Tokens)
    sign_in: SignIn | None = None
    feed: EventFeed | None = None
    started: float = field(default_factory=time.time)
    confirmations: Confirmations = field(default_factory=Confirmations)
    seed_view: SeedView = field(default_factory=SeedView)
    streams: Places = field(default_factory=Places)
    views: Places = field(default_factory=Places)
    joins: Pace = field(default_factory=lambda: Pace(_JOIN_RATE, _JOINS_AT_ONCE))
    shared: SharedStreams = field(init=False)
    history: History = field(init=False)
    live: LiveFigures = field(init=False)

    def __post_init__(self) -> None:
        self.shared = SharedStreams(self.server)

    @property
    def restart(self) -> Restart | None:
        """By which the server is started again; None where another program runs it."""
        return self.server.restart

    def start_figures(self) -> History:
        """Have what devices do counted and sampled from now on, until the result is closed. Raises UsbipError."""
        operations = self.server.operations
        self.history = History(operations)
        self.live = LiveFigures(
            operations, self.history, self._capture_figures, self._capture_changes, self.server.events
        )
        try:
            self.history.start()
        except RuntimeError as error:
            raise UsbipError(f"the figures of the dashboard cannot be taken: {error}: end other programs") from error
        return self.history

    def add_token(self, name: str, role: str, by: str) -> str:
        """A new one, with an event. Raises LocalProtocolError, Conflict, UsbipError."""
        token = self.tokens.add(name, role)
        self.server.events.emit(TOKEN_ADDED, NOTICE, text=f"{name}: {role}", by=by)
        return token

    def remove_token(self, name: str, by: str) -> None:
        """With an event. Raises NotFound, Conflict, UsbipError."""
        self.tokens.remove(name)
        self.server.events.emit(TOKEN_REMOVED, NOTICE, text=name, by=by)

    def captures(self, base: str = "") -> list[dict[str, object]]:
        """Those that run, as `/captures` has them. base: where the dashboard is."""
        store = self.server.captures
        return [] if store is None else [capture_data(facts, base) for facts in store.running]

    def _capture_figures(self) -> Mapping[str, object]:
        return {
            str(capture["id"]): {name: capture[name] for name in ("bytes", "packets", "dropped")}
            for capture in self.captures()
        }

    def _capture_changes(self) -> int:
        store = self.server.captures
        return 0 if store is None else store.changes
