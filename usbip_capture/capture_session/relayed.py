"""Mode `relay`: joins a relay, which is started if there is none, and which goes on when the capture ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from usbip_capture.capture.sinks import Sink
from usbip_capture.capture_session.events import SessionEvents
from usbip_capture.capture_session.settings import CaptureSettings
from usbip_capture.errors import ServerLost, UsbipError
from usbip_capture.live import registry
from usbip_capture.live.joining import JoinedCapture, JoinedState
from usbip_capture.live.messages import Message
from usbip_capture.live.registry import Entry

log = logging.getLogger(__name__)


class Relayed:
    """One capture of the relay that `settings` choose; `events` hears of its clients and of what it is doing."""

    def __init__(self, settings: CaptureSettings, events: SessionEvents) -> None:
        self._settings = settings
        self._choices = settings.choices
        self._entry = settings.relay
        self._events = events
        self._capture: JoinedCapture | None = None
        self._state: JoinedState | None = None

    def join(self, sink: Sink, on_end: Callable[[str], None]) -> JoinedCapture:
        """Capture into `sink` from now on. Raises UsbipError; the sink is as it was then."""
        try:
            return self._join(self._entry or self._chosen(), sink, on_end)
        except ServerLost:
            if self._entry is not None:
                raise
        # The relay exited while we joined it; start another once the port is free.
        return self._join(self._chosen(), sink, on_end)

    def _join(self, entry: Entry, sink: Sink, on_end: Callable[[str], None]) -> JoinedCapture:
        choices = self._choices
        log.info("joining %s", entry.display)
        capture = self._capture = JoinedCapture(
            entry,
            sink,
            snaplen=choices.snaplen,
            capture_filter=self._settings.capture_filter,
            max_packets=choices.count,
            record_unlinks=choices.record_unlinks,
            on_end=on_end,
        )
        self._state = JoinedState(entry, self._state_changed)
        return capture

    def drop(self, number: int) -> None:
        """Break off a client."""
        if self._state is not None:
            log.info("dropping client %d", number)
            self._state.drop(number)

    def close(self) -> None:
        """Hear no more of the relay's state."""
        if self._state is not None:
            self._state.close()

    def _chosen(self) -> Entry:
        """The relay that is chosen, started if it does not run."""
        # Imported here: who joins one that runs does not need it.
        from usbip_capture.net.networks import WARNING, is_loopback, listen_address
        from usbip_capture.net.ruling import check_lets_in
        from usbip_capture.relay import background
        from usbip_capture.relay.ruling import relay_rules

        choices = self._choices
        server = self._settings.required_server()
        address, port = listen_address(choices.relay_listen)
        check_lets_in(address, port, relay_rules([choices.relay_allow]))
        if not is_loopback(address):
            log.warning("other machines can connect: %s", WARNING)
        for entry in registry.running():
            if port and entry.listen and listen_address(entry.listen) == (address, port):
                if entry.server != str(server):
                    raise UsbipError(
                        f"{entry.display} listens there already: choose another port, or usbip-capture relay --stop"
                    )
                return entry
        return background.start(server, address, port, choices.relay_allow)

    def _state_changed(self, state: Message) -> None:
        """The relay reports its state."""
        if self._capture is not None:
            self._capture.state_changed(state)
        listed = state.get("clients")
        clients = {}
        for client in listed if isinstance(listed, list) else ():
            if isinstance(client, dict) and isinstance(client.get("number"), int):
                clients[client["number"]] = f"{client.get('device') or '(no device)'} {client.get('peer')}"
        hint = state.get("hint")
        self._events.clients(clients, hint if isinstance(hint, str) else "")
        activity = state.get("activity")
        idle = activity if isinstance(activity, str) else "relay: nobody is connected"
        self._events.activity(self, "; ".join(clients.values()) or idle)
