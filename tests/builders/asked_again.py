"""What a recorded host asked, asked again of a device."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from usbip_capture.device import Device, Transfer
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.replayed.recording import Recording
from usbip_capture.usb.setup import CLEAR_FEATURE, RECIPIENT_ENDPOINT, SET_CONFIGURATION
from usbip_capture.usb.status import EPIPE, EREMOTEIO, GONE
from usbip_capture.usb.urb import DIR_IN, SHORT_NOT_OK, Completion, TransferType, Urb

TIMEOUT = 3.0


def urb_of(exchange: Exchange) -> Urb:
    return Urb(
        exchange.transfer_type,
        exchange.endpoint,
        exchange.length or (exchange.moved if exchange.transfer_type != TransferType.CONTROL else 0),
        exchange.sent,
        exchange.setup,
        SHORT_NOT_OK if exchange.status == -EREMOTEIO else 0,
        packets=exchange.packets,
    )


def asked_again(recording: Recording, device: Device) -> list[tuple[Exchange, Completion]]:
    """All that the device had answered, submitted in the order of the recording, each as soon as it was then.

    What the recording does not have is done as each host does it: a device is configured before it is used, and a halt
    is cleared.
    """
    if not _configures_first(recording):
        _request(device, 0, SET_CONFIGURATION, recording.known.parsed[0].bConfigurationValue, 0)
    pending: list[tuple[Exchange, Transfer]] = []
    halted: dict[int, Transfer] = {}
    for exchange in _in_order(recording):
        if _clears_halt(exchange):
            halted.pop(exchange.setup[4], None)
        elif exchange.endpoint in halted and exchange.transfer_type != TransferType.CONTROL:
            assert device.wait(halted.pop(exchange.endpoint), TIMEOUT)
            _request(device, RECIPIENT_ENDPOINT, CLEAR_FEATURE, 0, exchange.endpoint)
        transfer = Transfer(urb_of(exchange))
        device.submit(transfer)
        pending.append((exchange, transfer))
        if exchange.status == -EPIPE and exchange.transfer_type != TransferType.CONTROL:
            halted[exchange.endpoint] = transfer
    found = []
    for exchange, transfer in pending:
        assert device.wait(transfer, TIMEOUT), f"packet {exchange.number}: {exchange} is not answered"
        assert transfer.completion is not None
        found.append((exchange, transfer.completion))
    return found


def _in_order(recording: Recording) -> Iterator[Exchange]:
    """That of the submits; what was under way when the capture began comes first of its endpoint."""
    asked = [one for one in recording.exchanges if not one.unlinked and one.status not in GONE]
    waiting: dict[int, deque[Exchange]] = defaultdict(deque)
    for one in sorted(asked, key=lambda one: one.answered):
        if _is_read(one):
            waiting[one.endpoint].append(one)
    for one in asked:
        yield waiting[one.endpoint].popleft() if _is_read(one) else one


def _is_read(exchange: Exchange) -> bool:
    return exchange.transfer_type != TransferType.CONTROL and bool(exchange.endpoint & DIR_IN)


def _configures_first(recording: Recording) -> bool:
    """Whether the device is configured in the recording before it is used."""
    for exchange in recording.exchanges:
        if exchange.transfer_type != TransferType.CONTROL:
            return False
        if exchange.setup[:2] == bytes((0, SET_CONFIGURATION)) and not exchange.unlinked:
            return True
    return False


def _clears_halt(exchange: Exchange) -> bool:
    is_request = exchange.transfer_type == TransferType.CONTROL
    return is_request and exchange.setup[:2] == bytes((RECIPIENT_ENDPOINT, CLEAR_FEATURE))


def _request(device: Device, recipient: int, request: int, value: int, index: int) -> None:
    transfer = Transfer(Urb(TransferType.CONTROL, 0, 0, b"", bytes((recipient, request, value, 0, index, 0, 0, 0))))
    device.submit(transfer)
    assert device.wait(transfer, TIMEOUT)
