"""Every session of a real kernel, asked again: the replayed device answers what the real one did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.answers_again import assert_answers_again
from usbip_capture.replayed.recording import read_recordings

GOLDEN = sorted(Path(__file__).parents[2].glob("golden/*/*-usbmon.pcap"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_answers_as_the_real_one_did(path: Path) -> None:
    for recording in read_recordings(path):
        assert_answers_again(recording)
