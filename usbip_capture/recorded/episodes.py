"""A conversation as episodes: something that the host asked, and what the device sent until it was asked again.

Endpoints of one function belong together; those of different functions are independent. What a device sends by itself,
such as a keyboard, are streams by their times. All of it is found in the recording as it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.descriptors import RecordedDescriptors, configuring
from usbip_capture.recorded.exchanges import OF_DEVICE, OF_INTERFACE, Endpoint, Exchanges, Row, first_after, indexed
from usbip_capture.recorded.rows import Rows
from usbip_capture.recorded.tags import is_csw
from usbip_capture.usb.descriptors import ConfigurationDescriptor, InterfaceDescriptor
from usbip_capture.usb.setup import RECIPIENT_INTERFACE
from usbip_capture.usb.status import EREMOTEIO
from usbip_capture.usb.urb import DIR_IN, TransferType

_ISOCHRONOUS, _INTERRUPT = TransferType.ISOCHRONOUS, TransferType.INTERRUPT
_COMMUNICATIONS, _DATA = 0x02, 0x0A
#: Bytes that full transfers are one answer for: a host with other lengths takes it in other pieces.
_MAX_JOINED = 1 << 20
#: Asks among which the next one of a function is looked for first.
_NEAR = 64
#: Transfers of commands that a capture may begin with the end of.
_MAX_COMMAND = 1024
#: A packet of a capture that has a command of Bulk-Only Transport is not longer, whatever its headers.
_COMMAND_PACKET = 256


@dataclass(slots=True)
class Sent:
    """What a device sent to an IN endpoint. status: 0, or with which a transfer failed.

    after: nanoseconds since the episode began. number: of the packet. full: it was as long as the host had asked for,
    so it may go on.
    """

    address: int
    data: bytes
    status: int
    after: int
    number: int
    full: bool = False


@dataclass(slots=True, eq=False)
class Episode:
    """ask: what began it, None for what comes by itself; at: its place in what was asked.

    since_ns, begins, ends: its time, and the packets between which its answers are. made: its answers, if they are not
    those of the recording.
    """

    ask: Row | None
    at: int
    function: int
    since_ns: int
    begins: int
    ends: int | None
    made: Sequence[Sent] = ()


class Conversation:
    """functions: of each endpoint address, and of each interface. streams: addresses of what comes by itself."""

    def __init__(self, exchanges: Exchanges, known: RecordedDescriptors) -> None:
        self.exchanges = exchanges
        self.functions: dict[int, int] = {}
        self.interfaces: dict[int, int] = {}
        _functions(self, known.parsed)
        self._answers = {address: one.answers for address, one in exchanges.endpoints.items() if one.answers}
        asking = {self.function_of(address) for address, one in exchanges.endpoints.items() if _is_out(address, one)}
        kinds = {address: exchanges.endpoints[address].transfer_type for address in self._answers}
        self.isochronous = [address for address, kind in kinds.items() if kind == _ISOCHRONOUS]
        self.streams = [a for a, kind in kinds.items() if kind == _INTERRUPT and self.function_of(a) not in asking]
        self._speaking = [a for a in self._answers if a not in self.streams and a not in self.isochronous]
        self._tags = self._tags_of_functions()
        self._started_ns = _started(exchanges)
        self._hints: dict[int, int] = {}  # address -> where the latest answers ended

    def function_of(self, address: int) -> int:
        """That of an endpoint."""
        return self.functions.get(address, 0)

    def function_of_request(self, recipient: int, index: int) -> int:
        """That of a class or vendor request: recipient bits of bmRequestType, wIndex."""
        if recipient == RECIPIENT_INTERFACE:
            return self.interfaces.get(index & 0xFF, 0)
        return next(iter(self.functions.values()), 0)

    def unasked(self) -> list[Episode]:
        """For each function, what it has sent before it was asked."""
        found = []
        for function in dict.fromkeys(self.function_of(address) for address in self._speaking):
            at = self.following(function, 0)
            ends = None if at is None else self._row(at).number
            found.append(Episode(None, -1, function, self._started_ns, -1, ends))
        return found

    def episode(self, at: int, function: int) -> Episode:
        """The one that begins at this place of what was asked."""
        row = self._row(at)
        following = self.following(function, at + 1)
        ends = None if following is None else self._row(following).number
        return Episode(row, at, function, row.time_ns, row.number, ends)

    def asked(self, at: int) -> Exchange:
        """What was asked at this place."""
        return self.exchanges.asked_at(at)

    def status(self, at: int) -> int:
        """With which it ended."""
        return self._row(at).status

    def is_long(self, at: int) -> bool:
        """Whether it is more than a command of a few bytes."""
        return self._row(at).submit_size > _COMMAND_PACKET

    def answers(self, episode: Episode) -> Iterator[tuple[int, Iterator[Sent]]]:
        """What it has brought, of each address."""
        if episode.made:
            yield episode.made[0].address, iter(episode.made)
            return
        for address in self._speaking:
            if self.function_of(address) != episode.function:
                continue
            rows = self._answers[address]
            first = first_after(rows, episode.begins, self._hints.get(address, 0))
            if first == len(rows) or (episode.ends is not None and rows[first][0] >= episode.ends):
                self._hints[address] = first
                continue
            if episode.ask is None and episode.ends is not None:
                first = self._after_command(rows, first, episode.ends)
            yield address, self._joined(address, rows, first, episode)

    def stream(self, address: int) -> Iterator[Sent]:
        """What comes by itself, since the device was configured."""
        for exchange in self._exchanges(self._answers[address], 0, None):
            yield _sent(exchange, max(exchange.end_ns - self._started_ns, 0))

    def packets(self, address: int) -> Iterator[Exchange]:
        """Isochronous transfers that were completed."""
        return self._exchanges(self._answers[address], 0, None)

    def _after_command(self, rows: Rows, first: int, ends: int) -> int:
        """Where what follows begins if the capture began in the middle of a command: nobody has asked for that."""
        last = first_after(rows, ends)
        for at in range(last - 1, max(first, last - _MAX_COMMAND) - 1, -1):
            if is_csw(self.exchanges.at(rows[at][1]).data):
                return at + 1
        return first

    def _joined(self, address: int, rows: Rows, first: int, episode: Episode) -> Iterator[Sent]:
        before: Sent | None = None
        parts: list[bytes] = []
        size = 0
        for exchange in self._exchanges(rows, first, episode.ends, address):
            sent = _sent(exchange, max(exchange.end_ns - episode.since_ns, 0))
            if before is not None:
                if before.full and not sent.status and size < _MAX_JOINED and not is_csw(sent.data):
                    parts.append(sent.data)
                    size += len(sent.data)
                    before.full = sent.full
                    continue
                before.data = b"".join(parts)
                yield before
            before, parts, size = sent, [sent.data], len(sent.data)
            if episode.ask is not None and is_csw(sent.data):
                break  # what follows is of a command that the capture has lost: whoever asks again has not sent it
        if before is not None:
            before.data = b"".join(parts)
            yield before

    def _exchanges(self, rows: Rows, first: int, ends: int | None, address: int | None = None) -> Iterator[Exchange]:
        for at in range(first, len(rows)):
            number, place = rows[at]
            if ends is not None and number >= ends:
                break
            if address is not None:
                self._hints[address] = at + 1
            yield self.exchanges[place]

    def _row(self, at: int) -> Row:
        return self.exchanges.row(self.exchanges.asked[at][0])

    def following(self, function: int, start: int) -> int | None:
        """The next place, from `start` on, of what is asked of a function."""
        tags, whole, near = self.exchanges.tags, len(self.exchanges.tags), _NEAR
        while start < whole:
            end = min(start + near, whole)
            for tag in self._tags.get(function, ()):
                found = tags.find(tag, start, end)
                end = end if found is None else found
            if end < min(start + near, whole):
                return end
            start, near = end, 2 * near
        return None

    def _tags_of_functions(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for tag in self.exchanges.tags_used:
            if tag < OF_INTERFACE:
                function = self.function_of(tag)
            elif tag < OF_DEVICE:
                function = self.interfaces.get(tag & 0xFF, 0)
            else:
                function = self.function_of_request(0, 0)
            found.setdefault(function, []).append(self.exchanges.tags.pack(tag))
        return found


def conversation_of(exchanges: Sequence[Exchange], known: RecordedDescriptors) -> Conversation:
    """That of a device."""
    return Conversation(indexed(exchanges), known)


def _is_out(address: int, one: Endpoint) -> bool:
    return not address & DIR_IN and bool(address) and one.transfer_type != _ISOCHRONOUS


def _sent(exchange: Exchange, after: int) -> Sent:
    full = exchange.transfer_type == TransferType.BULK and 0 < exchange.length <= exchange.moved
    # Short is what the host did not want, not what the device has failed with.
    status = 0 if exchange.status == -EREMOTEIO else exchange.status
    return Sent(exchange.endpoint, exchange.whole_data, status, after, exchange.answered, full)


def _started(exchanges: Exchanges) -> int:
    """When the device was configured; without that, when the recording begins."""
    found = configuring(exchanges)
    if found is not None:
        return found.time_ns
    return exchanges.begins_ns


def _functions(made: Conversation, configurations: Sequence[ConfigurationDescriptor]) -> None:
    """Which interfaces belong together: each its own, but a data interface to the communications interface before."""
    for configuration in configurations:
        before: InterfaceDescriptor | None = None
        for interface in configuration.interfaces:
            number = interface.bInterfaceNumber
            data_of = before is not None and before.bInterfaceClass == _COMMUNICATIONS
            if interface.bInterfaceClass == _DATA and before is not None and data_of:
                made.interfaces.setdefault(number, before.bInterfaceNumber)
            function = made.interfaces.setdefault(number, number)
            for endpoint in interface.endpoints:
                made.functions.setdefault(endpoint.bEndpointAddress, function)
            if interface.bInterfaceClass != _DATA:
                before = interface
