"""One serial line of a simulated adapter, and what is at its far end.

A `Peer` is notified of what the host does and answers by way of the `Line`. It outlives its lines: each import
opens a new one.
"""

from __future__ import annotations

import threading
from typing import Protocol

from usbip_capture.system.timetable import Timetable
from usbip_capture.uart.driver import Pipes
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines


class Adapter(Protocol):
    """Its events go to the host this way. timetable: its clock, for those at the far end."""

    timetable: Timetable

    def send(self, line: Line, data: bytes) -> None:
        """The far end sends."""

    def modem_changed(self, line: Line) -> None:
        """The far end drives `line.modem`."""

    def report(self, line: Line, errors: LineErrors) -> None:
        """Errors of the wire."""

    def wait_for_room(self, source: int, address: int) -> None:
        """NAK at OUT endpoint `source` while the host leaves too much unread at `address`."""


class Peer:
    """What is at the far end. Methods are called one after the other, from any thread, with no lock held."""

    line: Line

    def connected(self, line: Line) -> None:
        """The adapter is in use from now on."""
        self.line = line

    def received(self, data: bytes) -> None:
        """The host wrote this."""

    def lines_changed(self) -> None:
        """`line.dtr` or `line.rts` is another now."""

    def settings_changed(self) -> None:
        """`line.settings` are others now."""

    def break_changed(self) -> None:
        """`line.breaking` is another now."""


class Line:
    """The host's side, as the far end sees it: dtr, rts, breaking and settings are what the host has set."""

    def __init__(self, adapter: Adapter, pipes: Pipes) -> None:
        self.adapter = adapter
        self.index = pipes.index
        self.interface = pipes.interface
        self.in_address, self.out_address = pipes.bulk_in.address, pipes.bulk_out.address
        self.notify_address = pipes.notify.address if pipes.notify else 0  # 0: it has none
        self.settings = LineSettings()
        self.dtr = self.rts = self.breaking = False
        self.modem = ModemLines()
        self.stopped = False  # by the far end's XOFF

    def send(self, data: bytes) -> None:
        """Let the host read this."""
        self.adapter.send(self, data)

    def wait_for_room(self) -> None:
        """Take no more from the host until it has read what there is for it, if that is a lot."""
        self.adapter.wait_for_room(self.out_address, self.in_address)

    def set_modem(self, **lines: bool) -> None:
        """Drive cts, dsr, ri and cd; those that are not named stay."""
        modem = self.modem._replace(**lines)
        if modem != self.modem:
            self.modem = modem
            self.adapter.modem_changed(self)

    def report(self, errors: LineErrors) -> None:
        """Have the chip report errors of the wire: each that is not 0, once."""
        self.adapter.report(self, errors)


class Notebook(Peer):
    """Writes down what the host does; a test reads it. `taken` is set at each new entry."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.events: list[tuple[str, object]] = []
        self.taken = threading.Event()

    def received(self, data: bytes) -> None:
        self.written += data
        self.taken.set()

    def lines_changed(self) -> None:
        self._note("lines", (self.line.dtr, self.line.rts))

    def settings_changed(self) -> None:
        self._note("settings", self.line.settings)

    def break_changed(self) -> None:
        self._note("break", self.line.breaking)

    def _note(self, name: str, value: object) -> None:
        self.events.append((name, value))
        self.taken.set()


class Loopback(Peer):
    """A loop-back plug: TX on RX, RTS on CTS, DTR on DSR and CD. A break comes back as a break."""

    def connected(self, line: Line) -> None:
        super().connected(line)
        self.lines_changed()

    def received(self, data: bytes) -> None:
        self.line.send(data)
        self.line.wait_for_room()

    def lines_changed(self) -> None:
        line = self.line
        line.set_modem(cts=line.rts, dsr=line.dtr, cd=line.dtr)

    def break_changed(self) -> None:
        if self.line.breaking:
            self.line.report(LineErrors(breaks=1))


class NullModem:
    """Two lines, each the other's far end: `ends` are their peers. Handshake lines are crossed as well."""

    def __init__(self) -> None:
        one, other = _End(), _End()
        one.other, other.other = other, one
        self.ends: tuple[Peer, Peer] = (one, other)


class _End(Peer):
    other: _End

    def connected(self, line: Line) -> None:
        super().connected(line)
        if hasattr(self.other, "line"):
            self.other.lines_changed()

    def received(self, data: bytes) -> None:
        if hasattr(self.other, "line"):
            self.other.line.send(data)

    def lines_changed(self) -> None:
        if hasattr(self.other, "line"):
            line = self.line
            self.other.line.set_modem(cts=line.rts, dsr=line.dtr, cd=line.dtr)
