"""Every session of a real kernel, asked again: the replayed device answers what the real one did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.asked_again import asked_again
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import read_recordings
from usbip_capture.usb.urb import TransferType

GOLDEN = sorted(Path(__file__).parents[2].glob("golden/*/*-usbmon.pcap"))


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
