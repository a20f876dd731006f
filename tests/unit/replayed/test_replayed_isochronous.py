"""What was sent to a speaker, as a recording has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.replayed.recording import read_recordings
from usbip_capture.usb.urb import TransferType

GOLDEN = Path(__file__).parents[2] / "golden" / "audio-out"


@pytest.mark.parametrize("side", ["client", "server"])
def test_data_begins_after_the_packets_descriptors(side: str) -> None:
    (recording,) = read_recordings(GOLDEN / f"{side}-usbmon.pcap")
    lines = b"".join(one.sent for one in recording.exchanges if is_sound(one)).strip(b"\0").splitlines()
    numbers = [int(line) for line in lines[1:-1]]
    assert len(numbers) > 5000
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # `seq` was played


def is_sound(exchange: Exchange) -> bool:
    return exchange.transfer_type == TransferType.ISOCHRONOUS
