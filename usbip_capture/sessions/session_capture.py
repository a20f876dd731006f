"""A capture of sessions, which begins and ends when it likes: what was seen before comes first, marked."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from usbip_capture.access.devices import IDENTITY, PORT, DevicePattern
from usbip_capture.capture.channel import IN_FLIGHT, UsbChannel
from usbip_capture.capture.recent import Replay
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.sessions.session import DeviceSession, Watcher
from usbip_capture.system.shown import one_line
from usbip_capture.usb.urb import Completion, Urb

#: The comments on what a capture begins with: at a server, in a program.
DESCRIPTORS = "usbip-capture: descriptors and settings, seen by the server before this capture began"
DESCRIPTORS_OF_PROGRAM = "usbip-capture: descriptors and settings, seen by the program before this capture began"
#: Interfaces of one capture: whoever plugs in further devices has them captured no more.
_MAX_INTERFACES = 1000


class DeviceChoice:
    """Which devices are meant: those of any of these patterns, all if there are none. Raises LocalProtocolError."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = [DevicePattern.parse(text) for text in patterns]

    def includes(self, session: DeviceSession) -> bool:
        """Whether the device of this session is one of them."""
        exported = session.exported
        return not self._patterns or any(p.matches(exported.info, exported.serial) for p in self._patterns)

    def may_mean(self, busid: str, device: str) -> bool:
        """Whether it may be one of them. device: VID:PID or VID:PID:SERIAL, empty if that is not known."""
        return not self._patterns or any(_may_match(pattern, busid, device) for pattern in self._patterns)

    @property
    def texts(self) -> list[str]:
        """The patterns, as they can be parsed again."""
        return [str(pattern) for pattern in self._patterns]


class SessionCapture(Watcher[UsbChannel]):
    """Captures the sessions of these devices into `writer`, which is not closed here.

    An interface for each device: one that it keeps from session to session. server: for the descriptions of interfaces,
    where sessions have none. in_program: of whoever runs this, rather than of clients. hindsight: with what was kept.
    """

    def __init__(
        self,
        writer: PcapWriter,
        choice: DeviceChoice,
        server: str = "",
        *,
        in_program: bool = False,
        hindsight: bool = True,
    ) -> None:
        self.hindsight = hindsight
        self._lock = threading.Lock()  # sessions, each with a lock of its own, have their taps at the same time
        self._keeper = "program" if in_program else "server"
        self._writer = writer
        self._choice = choice
        self._server = server
        self._descriptors = DESCRIPTORS_OF_PROGRAM if in_program else DESCRIPTORS
        self._user = "the program" if in_program else "the client"
        self._free: dict[str, list[UsbChannel]] = {}
        self._count = 0

    def tap(self, session: DeviceSession) -> UsbChannel | None:
        if not self._choice.includes(session):
            return None
        with self._lock:
            free = self._free.get(session.key)
            channel = free.pop() if free else None
            self._count += channel is None
            too_many = self._count > _MAX_INTERFACES
            self._count -= too_many
        if channel is not None:
            channel.device(session.info)
            channel.comment("usbip-capture: a further session begins")
            return channel
        if too_many:
            self._writer.comment(f"usbip-capture: {session.info} is not captured: there are {self._count} interfaces")
            return None
        return self._writer.add_usb_interface(
            session.info, server=session.server or self._server, product=one_line(session.exported.product)
        )

    def replay(self, tap: UsbChannel) -> Replay:
        return Replay(tap, self._writer.flush, self._keeper)

    def label(self) -> str:
        return self._descriptors

    def earlier(self, tap: UsbChannel, requests: Sequence[tuple[Urb, Completion]]) -> None:
        tap.label = self._descriptors
        for urb, completion in requests:
            tap.completed(tap.submitted(urb), urb, completion)
        tap.label = None

    def in_flight(self, tap: UsbChannel, urb: Urb) -> int:
        tap.label = IN_FLIGHT
        number = tap.submitted(urb)
        tap.label = None
        return number

    def ended(self, session: DeviceSession, tap: UsbChannel, loss: str) -> None:
        if loss:
            tap.gone(loss)
        else:
            tap.comment(f"usbip-capture: {self._user} has released the device")
        tap.rest()
        with self._lock:
            self._free.setdefault(session.key, []).append(tap)


def _may_match(pattern: DevicePattern, busid: str, device: str) -> bool:
    if pattern.kind == PORT:
        return pattern.busid == busid
    return pattern.kind != IDENTITY or not device or f"{device}:".startswith(f"{pattern}:")
