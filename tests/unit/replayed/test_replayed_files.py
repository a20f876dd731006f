"""What is not a recording, or a damaged one: a sentence, or what there is of it; never a traceback or a hang."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.asked_again import asked_again
from tests.builders.capture_files import GOLDEN, classic, packets_of, pcapng
from tests.builders.conversion import convert
from usbip_capture.errors import CaptureError
from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.usb.status import GONE
from usbip_capture.usb.urb import TransferType

WHOLE = [make(packets_of("serial"), USB_LINUX_MMAPPED) for make in (classic, pcapng)]


def read(path: Path, raw: bytes) -> list[Recording]:
    path.write_bytes(raw)
    return read_recordings(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "session.pcap"


def sentence_or_devices(path: Path, raw: bytes) -> str:
    """Each device can be made, or there is a sentence."""
    try:
        recordings = read(path, raw)
    except CaptureError as error:
        return str(error)
    for recording in recordings:
        ReplayedDevice(recording, speed=0).close()
    return path.name


@settings(max_examples=40)
@given(st.sampled_from(WHOLE), st.integers(0, 1 << 20))
def test_cut_off_anywhere(path: Path, raw: bytes, length: int) -> None:
    sentence = sentence_or_devices(path, raw[: length % len(raw)])
    assert path.name in sentence
    assert "\n" not in sentence


@settings(max_examples=40)
@given(
    st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8)
)
def test_with_other_bytes_anywhere(path: Path, raw: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(raw)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    sentence = sentence_or_devices(path, bytes(damaged))
    assert path.name in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("raw", [*WHOLE, gzip.compress(WHOLE[0])], ids=["pcap", "pcapng", "gzip"])
def test_what_a_crash_has_left_is_replayed(raw: bytes, path: Path) -> None:
    """A capture that was not ended is one up to there."""
    (left,) = read(path, raw[:-21])
    (flaw,) = [flaw for flaw in left.flaws if "what came before is replayed" in flaw]
    assert "is cut off" in flaw
    device = ReplayedDevice(left, speed=0)
    try:
        assert len(asked_again(left, device)) > 30
        assert not device.outcome.divergences
    finally:
        device.close()


@pytest.mark.parametrize("name", ["keyboard", "serial", "storage", "stall"])
def test_what_was_converted_from_tcp_answers_the_same(name: str, path: Path) -> None:
    (converted,) = read(path, convert((GOLDEN / name / "usbip.pcap").read_bytes()).raw)
    (asked,) = [one for one in read_recordings(GOLDEN / name / "client-usbmon.pcap") if one.info.vid_pid]
    device = ReplayedDevice(converted, speed=0)
    try:
        for exchange, completion in asked_again(asked, device):
            what = f"packet {exchange.number}: {exchange}"
            assert completion.status == exchange.status, what
            if exchange.transfer_type != TransferType.ISOCHRONOUS:
                assert bytes(completion.data) == exchange.data, what
        assert not device.outcome.divergences
        assert not [one for one in device.unused if one.status not in GONE]
    finally:
        device.close()


def test_a_recording_of_tcp_is_to_be_converted_first() -> None:
    with pytest.raises(CaptureError, match=r"usbip\.pcap .*usbip-capture convert"):
        read_recordings(GOLDEN / "serial" / "usbip.pcap")


def test_what_other_systems_record_is_named(path: Path) -> None:
    with pytest.raises(
        CaptureError, match=r"has link type 266 \(USB of macOS\), which is not replayed: give a capture"
    ):
        read(path, pcapng(packets_of("serial"), 266))
