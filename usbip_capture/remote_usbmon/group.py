"""Several devices of the other machine into one capture, each on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from usbip_capture.capture.together import Part, run_together
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import UsbipError
from usbip_capture.remote_usbmon.machine import RemoteMachine
from usbip_capture.remote_usbmon.settings import UsbmonSettings
from usbip_capture.remote_usbmon.watching import WatchedDevice
from usbip_capture.servers.address import Selector, ServerAddress, parse_selection


class WatchedGroup:
    """The devices of the machine behind `server` that `selection` names, as of `ProbeGroup`; nobody is disturbed there.

    on_state: gets what becomes of each device, and which it is. Raises LocalProtocolError: not by ssh.
    """

    def __init__(
        self,
        server: ServerAddress,
        selection: str | list[Selector],
        settings: UsbmonSettings,
        on_state: Callable[[object, str], None] = lambda source, text: None,
    ) -> None:
        self._machine = RemoteMachine(server)
        self._selectors = parse_selection(selection) if isinstance(selection, str) else selection
        self._settings = settings
        self._on_state = on_state
        self._watched: list[WatchedDevice] = []
        #: What was wrong with devices that cannot be captured.
        self.missing: list[UsbipError] = []
        self._stopping = threading.Event()

    def connect(self) -> None:
        """Begin to capture every device there. Raises UsbipError if not one can be; what is wrong with the others,
        `run` raises.
        """
        survey = self._machine.survey()
        for device in survey.selected(self._selectors):
            if self._stopping.is_set():
                return
            try:
                watched = WatchedDevice(self._machine, survey, device, self._settings, self._on_state)
            except UsbipError as error:
                self.missing.append(error)
                continue
            self._watched.append(watched)
        if not self._watched and self.missing:
            raise self.missing[0]

    def run(self, writer: PcapWriter) -> None:
        """Capture into `writer` until stopped. Raises the first error of all."""
        for error in self.missing:
            writer.comment(f"usbip-capture: {error}")
        parts = [Part(partial(watched.run, watched.add_interface(writer)), watched.close) for watched in self._watched]
        for error in (*run_together(parts, "usbip-usbmon"), *self.missing):
            raise error

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self._stopping.set()
        for watched in list(self._watched):
            watched.stop()
        self._machine.stop()

    def close(self) -> None:
        """End what is connected and was not run."""
        for watched in self._watched:
            watched.close()
