"""What else follows from a capture: the toolbar shows it, and servers and devices are remembered for the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from usbip_capture.discovery import memory
from usbip_capture.hosts import DEMO, Server
from usbip_capture.probe import ProbeEvents
from usbip_capture.usb.info import DeviceInfo


class CaptureEvents(ProbeEvents):
    """on_state: gets a session and what it does. on_import: called for each device that was imported."""

    def __init__(self, server: Server, on_state: Callable[[object, str], None], on_import: Callable[[], None]) -> None:
        self._server = server
        self._on_state = on_state
        self._on_import = on_import

    def state(self, session: object, text: str) -> None:
        self._on_state(session, text)

    def imported(self, info: DeviceInfo) -> None:
        self._on_import()
        self._remember(info)

    def product(self, info: DeviceInfo, name: str) -> None:
        self._remember(info, name=name)

    def serial(self, info: DeviceInfo, number: str) -> None:
        self._remember(info, serial=number)

    def _remember(self, info: DeviceInfo, name: str = "", serial: str = "") -> None:
        server = self._server
        if server.host == DEMO:
            return

        def remember() -> None:
            if not name and not serial:
                memory.remember_server(server.host, server.port)
            vid_pid = "{:04x}:{:04x}".format(*info.vid_pid)
            memory.remember_product(server.host, server.port, info.busid, vid_pid, name, serial)

        # On a thread: a disk that is busy, or another program with the lock, must not hold up the device.
        threading.Thread(target=remember, name="usbip-memory", daemon=True).start()
