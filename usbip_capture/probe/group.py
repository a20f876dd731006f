"""Several probe sessions into one capture, each on a thread of its own: `--device all`, or several of them."""

from __future__ import annotations

import threading
from functools import partial

from usbip_capture.capture.together import Part, run_together
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.probe.session import ProbeSession
from usbip_capture.probe.settings import ProbeEvents, ProbeSettings
from usbip_capture.servers.address import ALL, Selector, ServerAddress, parse_selection


class ProbeGroup:
    """The devices of `server` that `selection` names: nothing, `auto`, busids and VID:PIDs with commas, or `all`."""

    def __init__(
        self,
        server: ServerAddress,
        selection: str | list[Selector],
        settings: ProbeSettings,
        events: ProbeEvents | None = None,
    ) -> None:
        self._server = server
        self._selectors = parse_selection(selection) if isinstance(selection, str) else selection
        self._settings = settings
        self._events = events
        self._sessions: list[ProbeSession] = []
        #: What was wrong with devices that could not be imported.
        self.missing: list[UsbipError] = []
        self._lock = threading.Lock()
        self._stopping = False

    def connect(self) -> None:
        """Import every device. Raises UsbipError if not one can be; what is wrong with the others, `run` raises."""
        for selector in self._selected():
            session = ProbeSession(self._server, selector, self._settings, self._events)
            with self._lock:
                if self._stopping:
                    return
                self._sessions.append(session)  # known before it connects, so that `stop` reaches it
            try:
                session.connect()
            except UsbipError as error:
                self.missing.append(error)
                with self._lock:
                    self._sessions.remove(session)
        if not self._sessions and self.missing:
            raise self.missing[0]

    def run(self, writer: PcapWriter) -> None:
        """Capture into `writer` until every session has ended. Raises the first error of all."""
        if not self._sessions:
            self.connect()
        for error in self.missing:
            writer.comment(f"usbip-capture: {error}")
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.add_interface(writer)
        parts = [Part(partial(session.run, writer), session.stop) for session in sessions]
        for error in (*run_together(parts, "usbip-session"), *self.missing):
            raise error

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        with self._lock:
            self._stopping = True
            sessions = list(self._sessions)
        for session in sessions:
            session.stop()

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these IN endpoints of each device from now on, None for all; from any thread."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.listen_to(chosen)

    def _selected(self) -> list[Selector]:
        if self._selectors is not ALL:
            return self._selectors
        devices = self._server.devices()
        if not devices:
            raise DeviceNotFound(self._server.empty)
        return [Selector(busid=info.busid) for info in devices]
