"""Every session of a real kernel, asked again: the replayed device answers what the real one did."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.device import Transfer
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.usb.status import GONE
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 30.0
GOLDEN = sorted(Path(__file__).parents[2].glob("golden/*/*-usbmon.pcap"))


def urb_of(exchange: Exchange) -> Urb:
    return Urb(
        exchange.transfer_type,
        exchange.endpoint,
        exchange.length,
        exchange.sent,
        exchange.setup,
        packets=exchange.packets,
    )


def asked_again(recording: Recording, device: ReplayedDevice) -> list[tuple[Exchange, Completion]]:
    """All that the device had answered, submitted in the order of the recording, each as soon as it was then."""
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


@pytest.mark.parametrize("match", ["strict", "loose"])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_answers_as_the_real_one_did(path: Path, match: str) -> None:
    for recording in read_recordings(path):
        if match == "strict" and any(exchange.cut for exchange in recording.exchanges):
            continue
        device = ReplayedDevice(recording, match=match, speed=0)
        try:
            for exchange, completion in asked_again(recording, device):
                what = f"packet {exchange.number}: {exchange}"
                assert completion.status == exchange.status, what
                if exchange.transfer_type != TransferType.ISOCHRONOUS:
                    assert completion.actual_length == exchange.moved, what
                assert bytes(completion.data) == exchange.data, what
            assert not device.outcome.divergences
            assert not device.unused
        finally:
            device.close()
