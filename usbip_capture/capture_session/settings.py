"""What a capture session is to capture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usbip_capture.errors import LocalProtocolError
from usbip_capture.live.registry import Entry
from usbip_capture.net.address import SSH
from usbip_capture.options.table import Choices
from usbip_capture.servers.address import Selector, ServerAddress

if TYPE_CHECKING:
    from usbip_capture.servers.dashboards import Dashboard

#: Values of the option `mode`, and of `syslog`.
PROBE, RELAY, LOG_ALONE, SERVER = "probe", "relay", "syslog", "server"
USBMON = "usbmon"
LOG_OFF, LOG_CONNECT, LOG_LISTEN = "off", "connect", "listen"


@dataclass(frozen=True)
class CaptureSettings:
    """choices: the user options. server: None where none is needed (see `needs_server`).

    dashboard: of the server that is joined in mode server.
    devices: of modes probe, server and usbmon, as `servers.address.parse_selection` takes or returns them.
    capture_filter: which URBs are written. relay: of mode relay, one that runs; None to find or start it.
    connecting_counts: the duration also limits how long connecting may take.
    shows_clients: of mode server, who asks for the clients.
    remembers: the server will be there the next time, and is listed then.
    log_linger: seconds in which the device's log is still read when a capture has ended by itself.
    """

    choices: Choices
    server: ServerAddress | None
    devices: str | list[Selector] = "auto"
    capture_filter: str = ""
    relay: Entry | None = None
    dashboard: Dashboard | None = None
    shows_clients: bool = False
    connecting_counts: bool = False
    log_linger: float = 0.0
    remembers: bool = True

    def __post_init__(self) -> None:
        """Raises LocalProtocolError for choices that do not go together."""
        if self.choices.mode == RELAY and self.log_source != LOG_OFF:
            raise LocalProtocolError(
                "the device's log is not captured in mode relay: switch --syslog off, or capture it in a second window"
            )
        if self.choices.mode == USBMON and self.choices.record_unlinks:
            raise LocalProtocolError(
                "usbmon does not see CMD_UNLINK and RET_UNLINK, which are USB/IP's: leave --record-unlinks out"
            )

    @property
    def log_source(self) -> str:
        """Where the device's log comes from: LOG_OFF, LOG_CONNECT or LOG_LISTEN."""
        choices = self.choices
        return LOG_CONNECT if choices.mode == LOG_ALONE and choices.syslog == LOG_OFF else choices.syslog

    def required_server(self) -> ServerAddress:
        """The server. Raises LocalProtocolError if there is none."""
        if self.server is None:
            raise LocalProtocolError("no server given: name one, or demo, a simulated device, or local, this machine")
        return self.server

    def required_dashboard(self) -> Dashboard:
        """That of the server to join. Raises LocalProtocolError if there is none."""
        if self.dashboard is None:
            raise LocalProtocolError("no server given: give the name or address of its dashboard, such as pi:8080")
        return self.dashboard

    def log_host(self) -> str:
        """Which host the device's log is read from. Raises LocalProtocolError."""
        if self.choices.mode != SERVER:
            return self.required_server().place[0]
        dashboard = self.required_dashboard()
        return f"{SSH}://{dashboard.host}" if dashboard.scheme == SSH else dashboard.host

    def log_timeout(self) -> float:
        """Seconds to connect to it. Raises LocalProtocolError."""
        return (self.required_dashboard() if self.choices.mode == SERVER else self.required_server()).timeout


def needs_server(choices: Choices) -> bool:
    """Whether these choices need the address of a USB/IP server."""
    return choices.mode != SERVER and (choices.mode != LOG_ALONE or choices.syslog != LOG_LISTEN)
