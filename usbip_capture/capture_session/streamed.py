"""Mode `server`: joins what others do at a server of ours, which goes on when the capture ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from usbip_capture.access.devices import DevicePattern
from usbip_capture.capture.sinks import Sink
from usbip_capture.capture_session.events import SessionEvents
from usbip_capture.capture_session.settings import CaptureSettings
from usbip_capture.errors import LocalProtocolError
from usbip_capture.server_stream.capture import StreamedCapture, Wanted
from usbip_capture.server_stream.state import ServerState, WatchedClient
from usbip_capture.servers.address import Selector, parse_selection

log = logging.getLogger(__name__)


class Streamed:
    """One capture of the server that `settings` choose; `events` hears of its clients and of the connection."""

    def __init__(self, settings: CaptureSettings, events: SessionEvents) -> None:
        self._settings = settings
        self._events = events
        self._state: ServerState | None = None

    def join(self, open_sink: Callable[[], Sink], on_end: Callable[[str], None]) -> StreamedCapture:
        """Capture from now on into what `open_sink` opens. Raises UsbipError; nothing is opened then."""
        settings, choices = self._settings, self._settings.choices
        dashboard = settings.required_dashboard()
        wanted = Wanted(
            patterns(settings.devices), settings.capture_filter, choices.snaplen, record_unlinks=choices.record_unlinks
        )
        log.info("joining %s: %s", dashboard.address, wanted)
        capture = StreamedCapture(
            dashboard,
            open_sink,
            wanted,
            max_packets=choices.count,
            reconnect=choices.reconnect,
            on_state=lambda text: self._events.activity(self, text),
            on_end=on_end,
        )
        if settings.shows_clients:
            self._state = ServerState(dashboard, self._clients_changed)
        return capture

    def drop(self, number: int) -> None:
        """End a client."""
        if self._state is not None:
            self._state.disconnect(number)

    def reset(self, number: int) -> None:
        """Reset the device of a client."""
        if self._state is not None:
            self._state.reset(number)

    def close(self) -> None:
        """Hear no more of the server's clients."""
        if self._state is not None:
            self._state.close()

    def _clients_changed(self, clients: Mapping[int, WatchedClient]) -> None:
        shown = {number: f"{one.busid or '(no device)'} {one.address}" for number, one in clients.items()}
        self._events.clients(shown, "")


def patterns(devices: str | list[Selector]) -> list[str]:
    """As the server takes them; none means all. Raises LocalProtocolError."""
    selectors = parse_selection(devices) if isinstance(devices, str) else devices
    if selectors in ([], [Selector()]):
        return []
    found = []
    for selector in selectors:
        if selector.serial and selector.vid_pid is None:
            raise LocalProtocolError(
                f"{selector} cannot be chosen at a server: give its busid, or VID:PID:{selector.serial}"
            )
        serial = f":{selector.serial}" if selector.serial else ""
        text = "{:04x}:{:04x}".format(*selector.vid_pid) + serial if selector.vid_pid else selector.busid
        found.append(str(DevicePattern.parse(text)))
    return found
