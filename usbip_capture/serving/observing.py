"""What sees the sessions of a server: a capture of all of them, and those that are begun while it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from usbip_capture.capture.span import Span
from usbip_capture.device import Device
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.lending.lender import Exported
from usbip_capture.server.events import Events
from usbip_capture.servers.server_table import ServerTable
from usbip_capture.system.folders import state_folder

if TYPE_CHECKING:
    from usbip_capture.serving.capture_store import CaptureStore
    from usbip_capture.serving.captures import SessionCaptures
    from usbip_capture.sessions.sessions import Sessions

log = logging.getLogger(__name__)

_MEGABYTE = 1_000_000
#: Characters of a server's name that are in that of its folder.
_MAX_NAME = 60


class Observing:
    """As `settings` has it, until `close`. server: for the descriptions of interfaces. name: of the server.

    client_of: who has the device of a busid now, for people. store, sessions: captures that are begun by hand, and what
    they see; None without a dashboard. Raises CaptureError, LocalProtocolError.
    """

    def __init__(
        self, settings: ServerTable, server: str, name: str, events: Events, client_of: Callable[[str], str]
    ) -> None:
        self.store: CaptureStore | None = None
        self.sessions: Sessions | None = None
        self._whole: SessionCaptures | None = None
        if settings.rotate and not settings.pcap:
            raise LocalProtocolError("rotate is for files: name one with pcap")
        if settings.hindsight and not settings.web:
            raise LocalProtocolError("hindsight is for captures that begin later: add web")
        if settings.web:
            from usbip_capture.sessions.sessions import Sessions

            keeps = Span.parse(settings.hindsight) if settings.hindsight else None
            self.sessions = Sessions(client_of, keeps=keeps)
            self._open_store(settings, self.sessions, server, name, events)
        if settings.pcap:
            from usbip_capture.serving.captures import SessionCaptures

            try:
                self._whole = SessionCaptures(settings.pcap, server, settings.rotate)
            except BaseException:
                self.close()
                raise

    def observed(self, device: Device, exported: Exported) -> Device:
        """`device`, which a client gets, with all that it does seen."""
        if self._whole is not None:
            device = self._whole.tapped(device, exported)
        return device if self.sessions is None else self.sessions.observed(device, exported)

    def close(self) -> None:
        """Complete all captures. Raises CaptureError if that of all sessions has failed."""
        if self.store is not None:
            self.store.close()
        if self._whole is not None:
            self._whole.close()

    def _open_store(self, settings: ServerTable, sessions: Sessions, server: str, name: str, events: Events) -> None:
        from usbip_capture.serving.capture_store import CaptureStore

        folder = settings.captures or os.path.join(state_folder(), f"captures-{quote(name, safe='')[:_MAX_NAME]}")
        try:
            limit = settings.captures_size * _MEGABYTE
            self.store = CaptureStore(folder, sessions, events, limit=limit, server=server)
        except CaptureError as error:
            if settings.captures:
                raise
            log.warning("%s: name a folder with captures", error)
