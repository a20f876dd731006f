"""What all simulated serial adapters have in common: lines, their far ends, flow control, the order of events."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from usbip_capture.device import Transfer
from usbip_capture.errors import LocalProtocolError
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.simulated.serial.line import Line, Peer
from usbip_capture.uart.settings import XOFF, XON, LineErrors
from usbip_capture.usb.info import DeviceInfo


class SimulatedAdapter(SimulatedDevice):
    """An adapter in use, with a peer for each of the ports that its descriptors show."""

    #: Which flow control the chip does by itself.
    in_chip: frozenset[str] = frozenset()

    def __init__(self, info: DeviceInfo, descriptors: Descriptors, peers: Sequence[Peer]) -> None:
        super().__init__(info, descriptors)
        ports = descriptors.serial_ports(info.speed)
        self._events: deque[Callable[[], None]] = deque()
        self._peers = list(peers)
        self.lines = [Line(self, port.pipes) for port in ports]
        self._by_out = {line.out_address: line for line in self.lines}
        for line, peer in zip(self.lines, peers, strict=True):
            peer.connected(line)

    # -- what each chip implements

    @abstractmethod
    def send(self, line: Line, data: bytes) -> None:
        """Give the host data from the wire, as this chip packs it. Called by way of `Line.send`."""

    def modem_changed(self, line: Line) -> None:
        """The far end has changed the modem lines: notify the host, if this chip does, and let flow control know."""
        self._hold(line)

    @abstractmethod
    def report(self, line: Line, errors: LineErrors) -> None:
        """Report errors to the host."""

    # -- what the host does, reported by the chips

    def host_sets(self, line: Line, **changes: object) -> bool:
        """Take new line settings, by the names of LineSettings. False: the chip has no such thing."""
        try:
            settings = replace(line.settings, **changes)  # type: ignore[arg-type]
        except LocalProtocolError:
            return False
        if settings != line.settings:
            line.settings = settings
            self._notify_peer(line, "settings_changed")
        return True

    def host_drives(self, line: Line, dtr: bool, rts: bool) -> None:
        """Take DTR and RTS, both at the same moment."""
        if (dtr, rts) != (line.dtr, line.rts):
            line.dtr, line.rts = dtr, rts
            self._notify_peer(line, "lines_changed")

    def host_breaks(self, line: Line, on: bool) -> None:
        """Take the beginning or the end of a break."""
        if on != line.breaking:
            line.breaking = on
            self._notify_peer(line, "break_changed")

    def from_wire(self, line: Line, data: bytes) -> bytes:
        """What is left of data from the far end when the chip has taken its XON and XOFF."""
        if "xonxoff" in self.in_chip and line.settings.xonxoff:
            for byte in data:
                line.stopped = byte == XOFF if byte in (XON, XOFF) else line.stopped
            self._hold(line)
            return data.translate(None, bytes([XON, XOFF]))
        return data

    # -- how it works

    def submit(self, transfer: Transfer) -> None:
        super().submit(transfer)
        # Far ends hear of requests when nothing is locked any more: they may answer at once.
        while self._events:
            try:
                event = self._events.popleft()
            except IndexError:
                return
            event()

    def received(self, address: int, data: bytes) -> None:
        line = self._by_out.get(address)
        if line is not None:
            self._peers[line.index].received(data)

    def _notify_peer(self, line: Line, what: str) -> None:
        self._events.append(partial(self._deliver, line, what))

    def _deliver(self, line: Line, what: str) -> None:
        self._hold(line)
        getattr(self._peers[line.index], what)()

    def _hold(self, line: Line) -> None:
        """Stop or go on taking data from the host, as flow control in the chip wants."""
        settings, modem = line.settings, line.modem
        wait = (
            ("rtscts" in self.in_chip and settings.rtscts and not modem.cts)
            or ("dsrdtr" in self.in_chip and settings.dsrdtr and not modem.dsr)
            or ("xonxoff" in self.in_chip and settings.xonxoff and line.stopped)
        )
        self.hold(line.out_address, bool(wait))
