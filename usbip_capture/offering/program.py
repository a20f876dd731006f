"""This program as something that can be joined: listed by Wireshark, and every device that it uses is in the capture.

It stays listed until it ends, so that a capture goes on when the program opens its device again.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from dataclasses import dataclass

from usbip_capture.capture.span import Span
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.device import Device
from usbip_capture.errors import CannotListen, RemoteProtocolError
from usbip_capture.live.local_channel import LocalChannel
from usbip_capture.live.messages import Message
from usbip_capture.live.serving import Source
from usbip_capture.sessions.session_capture import DeviceChoice, SessionCapture
from usbip_capture.sessions.sessions import Sessions
from usbip_capture.system.at_exit import close_at_exit
from usbip_capture.system.forks import disown_in_children
from usbip_capture.system.shown import one_line
from usbip_capture.tap import Tap, Tapped
from usbip_capture.usb.info import DeviceInfo

log = logging.getLogger(__name__)

#: Its name as an interface of Wireshark begins so; the process id follows.
PREFIX = "usbip-session-"
#: Characters of a program's name, and devices, that Wireshark's list shows.
_MAX_NAME, _MAX_DEVICES = 40, 4


@dataclass(slots=True, frozen=True)
class _Used:
    """A device as its server lists it: its texts are not known."""

    info: DeviceInfo
    product: str = ""
    serial: str = ""


class ProgramOffer(Source):
    """Offers what this process does with its devices until `close`. Raises CannotListen."""

    def __init__(self) -> None:
        self.sessions = Sessions(on_change=self._changed)
        self._program = f"{program_name()} {os.getpid()}"
        self._listing = threading.Lock()
        self.channel = LocalChannel(self, f"{PREFIX}{os.getpid()}", self._display(), server="", listen="")
        close_at_exit(self)
        disown_in_children(self)

    def observed(self, device: Device, server: str, own: Tap | None = None) -> Device:
        """`device`, which the program uses, shown to `own` and to those who join. server: where it is, for people."""
        return self.sessions.observed(device, _Used(device.info), server, own)

    def close(self) -> None:
        """Complete the captures that run, and offer nothing more. May be called again."""
        _forget(self)
        self.channel.close()

    def forked(self) -> None:
        """In a child process, which offers nothing before it is asked to."""
        global _lock
        _lock, self._listing = threading.Lock(), threading.Lock()
        _forget(self)
        self.sessions.forked()

    # -- as the channel asks

    def begin(self, writer: PcapWriter) -> SessionCapture:
        """Capture into `writer`."""
        writer.comment(f"usbip-capture: session of {self._program}")
        capture = SessionCapture(writer, DeviceChoice(), in_program=True)
        self.sessions.join(capture)
        return capture

    def end(self, capture: object) -> None:
        """Capture no more."""
        if isinstance(capture, SessionCapture):
            self.sessions.leave(capture)

    def state(self) -> Message:
        """What it uses now; nobody else is a client of it."""
        devices = self._devices()
        return {"clients": [], "hint": "", "activity": f"{self._program} uses {devices or 'no device'}"}

    def drop(self, number: int) -> None:
        """There is nobody to break off."""

    def stop(self) -> None:
        """A program is not ended from here."""
        raise RemoteProtocolError(f"{self._program} is a program of its own: end it as it is usually ended")

    def _changed(self) -> None:
        with self._listing:
            self.channel.rename(self._display())

    def _display(self) -> str:
        return ", ".join(filter(None, (f"USB/IP session: {self._program}", self._devices())))

    def _devices(self) -> str:
        busids = list(dict.fromkeys(one_line(session.info.busid) for session in self.sessions.current))
        shown = ", ".join(busids[:_MAX_DEVICES])
        return f"{shown}, ..." if len(busids) > _MAX_DEVICES else shown


_lock = threading.Lock()
_offer: ProgramOffer | None = None


def program_offer(hindsight: str = "") -> ProgramOffer:
    """That of this process, always the same one until it is closed.

    hindsight: as `capture.span` has it: how much is kept of each device from its next use on; "" changes nothing.
    Raises CannotListen, LocalProtocolError.
    """
    global _offer  # noqa: PLW0603  one for the process: it is listed once
    keeps = Span.parse(hindsight) if hindsight else None
    with _lock:
        if _offer is None:
            _offer = ProgramOffer()
        if keeps is not None:
            _offer.sessions.keeps = keeps
        return _offer


def observed(device: Device, server: str, own: Tap | None = None) -> Device:
    """`device`, which this program uses, shown to `own` and to those who join.

    What cannot be offered is used all the same.
    """
    try:
        return program_offer().observed(device, server, own)
    except CannotListen as error:
        log.warning("%s", error)
        return device if own is None else Tapped(device, own)


def _forget(offer: ProgramOffer) -> None:
    global _offer  # noqa: PLW0603  as above
    with _lock:
        if _offer is offer:
            _offer = None


def program_name() -> str:
    """What runs, for people: `esptool` of `/usr/bin/esptool.py`, or of `python -m esptool`."""
    path = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    folder, name = os.path.split(path)
    if name == "__main__.py":
        name = os.path.basename(folder)
    return one_line(name.removesuffix(".py"))[:_MAX_NAME] or "python"
