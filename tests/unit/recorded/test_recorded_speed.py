"""The speed of a device, which no capture has."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.replayed.recording import read_recordings
from usbip_capture.usb.info import Speed

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("keyboard", Speed.HIGH),  # only its interval, of 64 microframes for a bInterval of 7, speaks of it
        ("storage", Speed.HIGH),
        ("serial", Speed.FULL),
        ("audio-in", Speed.FULL),
    ],
)
def test_sessions_of_a_real_kernel(name: str, speed: Speed, side: str) -> None:
    (recording,) = read_recordings(GOLDEN / name / f"{side}-usbmon.pcap")
    assert recording.info.speed == speed
