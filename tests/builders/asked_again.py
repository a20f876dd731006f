"""What a recorded host asked, asked again of a device."""

from __future__ import annotations

from usbip_capture.device import Device, Transfer
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.replayed.recording import Recording
from usbip_capture.usb.setup import SET_CONFIGURATION
from usbip_capture.usb.status import GONE
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 3.0


def urb_of(exchange: Exchange) -> Urb:
    return Urb(
        exchange.transfer_type,
        exchange.endpoint,
        exchange.length or (exchange.moved if exchange.transfer_type != TransferType.CONTROL else 0),
        exchange.sent,
        exchange.setup,
        packets=exchange.packets,
    )


def asked_again(recording: Recording, device: Device) -> list[tuple[Exchange, Completion]]:
    """All that the device had answered, submitted in the order of the recording, each as soon as it was then.

    A device whose configuring is not in the recording is configured first, as each new host does.
    """
    if not any(_configures(exchange) for exchange in recording.exchanges):
        value = recording.known.parsed[0].bConfigurationValue
        transfer = Transfer(Urb(TransferType.CONTROL, 0, 0, b"", bytes((0, SET_CONFIGURATION, value, 0, 0, 0, 0, 0))))
        device.submit(transfer)
        assert device.wait(transfer, TIMEOUT)
    pending: list[tuple[Exchange, Transfer]] = []
    for exchange in recording.exchanges:
        if exchange.unlinked or exchange.status in GONE or not exchange.number:
            continue
        transfer = Transfer(urb_of(exchange))
        device.submit(transfer)
        pending.append((exchange, transfer))
    found = []
    for exchange, transfer in pending:
        assert device.wait(transfer, TIMEOUT), f"packet {exchange.number}: {exchange} is not answered"
        assert transfer.completion is not None
        found.append((exchange, transfer.completion))
    return found


def _configures(exchange: Exchange) -> bool:
    is_request = exchange.transfer_type == TransferType.CONTROL and not exchange.unlinked
    return is_request and exchange.setup[:2] == bytes((0, SET_CONFIGURATION))
