"""What a capture session reports, and what it remembers for the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.device import Device
from usbip_capture.probe import ProbeEvents
from usbip_capture.servers import memory
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.info import DeviceInfo

if TYPE_CHECKING:
    from usbip_capture.syslog.message import Message


class SessionEvents:
    """Called on any thread, and not for long; each method may be overridden."""

    def activity(self, source: object, text: str) -> None:
        """What a device, or the relay, is doing now. source: only identifies which one it is."""

    def capturing(self) -> None:
        """The device is imported, the output is open: transfers come next."""

    def log_started(self) -> None:
        """The device's log is being read, or is being connected to."""

    def log_message(self, message: Message) -> None:
        """A message of the device's log."""

    def clients(self, clients: dict[int, str], hint: str) -> None:
        """Who is connected to the relay: a text for each by its number. hint: how to attach."""

    def observe(self, device: Device) -> Device:
        """The device to capture instead of `device`, such as one around it."""
        return device

    def ended(self) -> None:
        """The session has ended, and its output is complete."""


class ForwardedEvents(ProbeEvents):
    """Events of probe sessions, for `events`. on_import: for each device. remembers: servers and devices."""

    def __init__(
        self, server: ServerAddress, events: SessionEvents, on_import: Callable[[], None], *, remembers: bool = True
    ) -> None:
        self._server = server
        self._remembers = remembers and not server.is_built_in
        self._events = events
        self._on_import = on_import

    def state(self, session: object, text: str) -> None:
        self._events.activity(session, text)

    def observe(self, device: Device) -> Device:
        return self._events.observe(device)

    def imported(self, info: DeviceInfo) -> None:
        self._on_import()
        self._remember(info)

    def product(self, info: DeviceInfo, name: str) -> None:
        self._remember(info, name=name)

    def serial(self, info: DeviceInfo, number: str) -> None:
        self._remember(info, serial=number)

    def _remember(self, info: DeviceInfo, name: str = "", serial: str = "") -> None:
        server = self._server
        if not self._remembers:
            return

        def remember() -> None:
            if not name and not serial:
                memory.remember_server(*server.place)
            vid_pid = "{:04x}:{:04x}".format(*info.vid_pid)
            memory.remember_product(*server.place, info.busid, vid_pid, name, serial)

        # On a thread: a disk that is busy, or another program with the lock, must not hold up the device.
        try:
            threading.Thread(target=remember, name="usbip-memory", daemon=True).start()
        except RuntimeError:  # no thread to spare: the capture matters more
            pass
