"""What every serial chip's driver does: choose the control requests to send, and read what the chip sent.

A driver does no transfers itself. Whoever owns the port sends the `Request`s of each list in their order, and hands
the data of those that read to `answered`. Requests of one list do not depend on each other's answers: they may be in
flight together, unless the driver wants them `one_at_a_time`. Opening a port is `identify`, `open`, `apply(None,
settings)`, `set_lines`, `poll`, each answered before the next is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.setup import Setup, set_interface


class Request(NamedTuple):
    """One control request. `data` is that of an OUT stage.

    optional: a device that stalls it still works; if it reads, its answer is then b"".
    """

    setup: Setup
    data: bytes = b""
    optional: bool = False

    @property
    def reads(self) -> bool:
        """Whether the answer goes to `Driver.answered`."""
        return bool(self.setup.bmRequestType & 0x80)


@dataclass(slots=True, frozen=True)
class Pipes:
    """Where a port is in its device.

    interface: bInterfaceNumber of the interface that takes its requests; claim `interfaces`, all that it is made of.
    index: 0 for the device's first port. alternate: bAlternateSetting of the interface `data_interface` with the bulk
    endpoints. bcdDevice and idProduct distinguish chips of a family. capabilities: bmCapabilities of CDC-ACM.
    """

    interface: int
    index: int
    bulk_in: Endpoint
    bulk_out: Endpoint
    notify: Endpoint | None = None
    interfaces: tuple[int, ...] = ()
    data_interface: int = 0
    alternate: int = 0
    idVendor: int = 0
    idProduct: int = 0
    bcdDevice: int = 0
    ports: int = 1
    capabilities: int = 0


class Driver(ABC):
    """One open port. `lines` and `errors` are what the chip last reported of the wire.

    in_chip: which of rtscts, dsrdtr and xonxoff the chip does by itself since the last `apply`; the others are left
    to the port's owner.
    one_at_a_time: requests wait for the answer to the one before.
    polls: modem lines come only as the answer to `poll`; else they come by themselves, after one `poll` at the start.
    """

    name = ""
    in_chip: frozenset[str] = frozenset()
    one_at_a_time = False
    polls = False

    def __init__(self, pipes: Pipes) -> None:
        self.pipes = pipes
        self.lines = ModemLines()
        self.errors = LineErrors()

    def identify(self) -> Sequence[Request]:
        """What must be answered before `open`, so that the driver knows its chip."""
        return []

    def open(self) -> Sequence[Request]:
        """Switch the port on."""
        pipes = self.pipes
        return [Request(set_interface(pipes.data_interface, pipes.alternate))] if pipes.alternate else []

    @abstractmethod
    def apply(self, old: LineSettings | None, new: LineSettings) -> Sequence[Request]:
        """Go from `old` settings to `new`, with no request for what stays; None: nothing is known of the chip.

        Raises LocalProtocolError, with nothing changed, for what the chip cannot do.
        """

    @abstractmethod
    def set_lines(self, dtr: bool, rts: bool) -> Sequence[Request]:
        """Drive DTR and RTS; both change at once where the chip can. True is asserted."""

    @abstractmethod
    def set_break(self, on: bool) -> Sequence[Request]:
        """Begin or end a break."""

    def purge(self, rx: bool, tx: bool) -> Sequence[Request]:
        """Empty the chip's own buffers; nothing for chips that cannot."""
        return []

    def poll(self) -> Sequence[Request]:
        """Ask for the modem lines; nothing for chips that only report changes."""
        return []

    def answered(self, request: Request, data: bytes) -> None:  # noqa: B027  most chips answer nothing
        """The answer to a request that `reads`. Too short an answer changes nothing."""

    def received(self, data: bytes) -> bytes:
        """The bytes from the wire in what one bulk IN transfer brought, which may be several packets."""
        return data

    def notified(self, data: bytes) -> None:  # noqa: B027  most chips notify of nothing
        """What one transfer of the interrupt endpoint brought. What makes no sense is ignored."""

    def close(self) -> Sequence[Request]:
        """Switch the port off."""
        return []
