"""A conversation as episodes: something that the host asked, and what the device sent until it was asked again.

Endpoints of one function belong together; those of different functions are independent. What a device sends by itself,
such as a keyboard, are streams by their times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.descriptors import RecordedDescriptors
from usbip_capture.recorded.tags import is_csw, without_tag
from usbip_capture.usb.descriptors import ConfigurationDescriptor, InterfaceDescriptor
from usbip_capture.usb.setup import RECIPIENT_INTERFACE, SET_CONFIGURATION
from usbip_capture.usb.urb import DIR_IN, TransferType

_CONTROL, _ISOCHRONOUS, _INTERRUPT = TransferType.CONTROL, TransferType.ISOCHRONOUS, TransferType.INTERRUPT
_COMMUNICATIONS, _DATA = 0x02, 0x0A
_TYPE_BITS = 0x60


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
    """ask: what began it, None for what comes by itself. key: what is asked, without what changes each time."""

    ask: Exchange | None
    key: bytes = b""
    sent: list[Sent] = field(default_factory=list)
    used: int = 0


@dataclass(slots=True)
class Conversation:
    """episodes: of each function, by its number. functions: of each endpoint address, and of each interface. streams:
    what comes by itself, of each address. isochronous: completions, of each address."""

    episodes: dict[int, list[Episode]] = field(default_factory=dict)
    functions: dict[int, int] = field(default_factory=dict)
    interfaces: dict[int, int] = field(default_factory=dict)
    streams: dict[int, list[Sent]] = field(default_factory=dict)
    isochronous: dict[int, list[Exchange]] = field(default_factory=dict)


def conversation_of(exchanges: Sequence[Exchange], known: RecordedDescriptors) -> Conversation:
    """That of a device."""
    made = Conversation()
    _functions(made, known.parsed)
    asking = {made.functions.get(e.endpoint, 0) for e in exchanges if _is_out(e)}
    started_ns = _started(exchanges)
    moments = sorted(_moments(exchanges), key=lambda moment: moment[:2])
    for moment, _, exchange, is_ask in moments:
        function = made.functions.get(exchange.endpoint, 0)
        if is_ask:
            if exchange.transfer_type == _CONTROL:
                function = _function_of_request(made, exchange)
            made.episodes.setdefault(function, []).append(Episode(exchange, key_of(exchange)))
        elif exchange.transfer_type == _ISOCHRONOUS:
            made.isochronous.setdefault(exchange.endpoint, []).append(exchange)
        elif function not in asking and exchange.transfer_type == _INTERRUPT:
            made.streams.setdefault(exchange.endpoint, []).append(_sent(exchange, max(moment - started_ns, 0)))
        else:
            _answer(made.episodes.setdefault(function, []), exchange, started_ns)
    for episodes in made.episodes.values():
        _drop_end_of_command(episodes)
    return made


def key_of(exchange: Exchange) -> bytes:
    """What is asked: equal for what asks for the same."""
    if exchange.cut and not exchange.endpoint & DIR_IN:
        return cut_key(exchange)
    if exchange.transfer_type == _CONTROL:
        return b"c" + exchange.setup + exchange.sent
    return bytes((ord("o"), exchange.endpoint)) + without_tag(exchange.sent)


def cut_key(exchange: Exchange) -> bytes:
    """What is asked where the capture has cut the data: its length is all that is known."""
    return bytes((ord("x"), exchange.endpoint)) + exchange.setup + exchange.length.to_bytes(4, "little")


def _moments(exchanges: Iterable[Exchange]) -> Iterable[tuple[int, int, Exchange, bool]]:
    """Asks at their submits, answers at their completions: time, packet, exchange, whether it is an ask."""
    for exchange in exchanges:
        if exchange.transfer_type == _CONTROL:
            if _is_request(exchange) and not exchange.unlinked and not exchange.status:
                yield exchange.time_ns, exchange.number, exchange, True
        elif exchange.endpoint & DIR_IN:
            if not exchange.unlinked:
                yield exchange.end_ns, exchange.answered, exchange, False
        elif exchange.transfer_type != _ISOCHRONOUS and exchange.number and not exchange.unlinked:
            yield exchange.time_ns, exchange.number, exchange, True


def _is_request(exchange: Exchange) -> bool:
    """A class or vendor request without an answer in its data stage: it may be what makes a device speak."""
    return bool(exchange.setup[0] & _TYPE_BITS) and not exchange.setup[0] & DIR_IN


def _is_out(exchange: Exchange) -> bool:
    return (
        exchange.transfer_type not in (_CONTROL, _ISOCHRONOUS)
        and not exchange.endpoint & DIR_IN
        and bool(exchange.endpoint & 0x0F)
    )


def _sent(exchange: Exchange, after: int) -> Sent:
    full = exchange.transfer_type == TransferType.BULK and 0 < exchange.length <= exchange.moved
    return Sent(exchange.endpoint, exchange.whole_data, exchange.status, after, exchange.answered, full)


def _answer(episodes: list[Episode], exchange: Exchange, started_ns: int) -> None:
    if not episodes:
        episodes.append(Episode(None))
    episode = episodes[-1]
    since = started_ns if episode.ask is None else episode.ask.time_ns
    sent = _sent(exchange, max(exchange.end_ns - since, 0))
    before = episode.sent[-1] if episode.sent else None
    if before is not None and episode.ask is not None and is_csw(before.data):
        return  # of a command that the capture has lost: whoever asks again has not sent it
    # A transfer that was full may be a piece of more: a host with other lengths takes it in other pieces.
    goes_on = before is not None and before.full and before.address == sent.address and not sent.status
    if before is not None and goes_on and not is_csw(sent.data):
        before.data += sent.data
        before.full = sent.full
        return
    episode.sent.append(sent)


def _drop_end_of_command(episodes: list[Episode]) -> None:
    """What a capture that began in the middle of a command has of it: whoever comes now has not sent that."""
    if len(episodes) > 1 and episodes[0].ask is None:
        sent = episodes[0].sent
        ends = [at for at, one in enumerate(sent) if is_csw(one.data)]
        del sent[: ends[-1] + 1 if ends else 0]


def _started(exchanges: Sequence[Exchange]) -> int:
    """When the device was configured; without that, when the recording begins."""
    for exchange in exchanges:
        if exchange.transfer_type == _CONTROL and exchange.setup[:2] == bytes((0, SET_CONFIGURATION)):
            return exchange.time_ns
    return min((exchange.time_ns for exchange in exchanges), default=0)


def _function_of_request(made: Conversation, exchange: Exchange) -> int:
    if exchange.setup[0] & 0x1F == RECIPIENT_INTERFACE:
        return made.interfaces.get(exchange.setup[4], 0)
    return next(iter(made.functions.values()), 0)


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
