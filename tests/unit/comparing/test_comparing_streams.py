"""Two sessions with a microphone: for how long each host has listened is a matter of time, what it heard is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.capture_files import Shown, classic, packets_of
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.usb.urb import TransferType

_KIND_AT, _HEADER, _DESCRIPTOR = 9, 64, 16


@pytest.fixture
def heard() -> list[Shown]:
    return packets_of("audio-in")


def session(tmp_path: Path, packets: list[Shown]) -> Recording:
    path = tmp_path / "session.pcap"
    path.write_bytes(classic(packets, USB_LINUX_MMAPPED))
    (found,) = read_recordings(path)
    return found


def differences(first: Recording, second: Recording, tolerance: float | None = None) -> list[str]:
    return list(lines(compare(first.exchanges, second.exchanges, (first.known, second.known), tolerance)))


def is_stream(packet: Shown) -> bool:
    return packet.data[_KIND_AT] == TransferType.ISOCHRONOUS


@pytest.mark.parametrize("left_out", [1, 200])
def test_who_listens_longer_is_equal_unless_times_are_compared(
    heard: list[Shown], left_out: int, tmp_path: Path
) -> None:
    last = [packet for packet in heard if is_stream(packet)][-2 * left_out :]
    first, second = session(tmp_path, heard), session(tmp_path, [one for one in heard if one not in last])
    assert differences(first, second) == differences(second, first) == []
    assert all(line.endswith("only in the first") for line in differences(first, second, 60.0))
    assert differences(first, second, 60.0)


def test_another_sample_is_a_difference(heard: list[Shown], tmp_path: Path) -> None:
    at = next(at for at, one in enumerate(heard) if is_stream(one) and len(one.data) > _HEADER + _DESCRIPTOR + 100)
    changed = bytearray(heard[at].data)
    changed[_HEADER + _DESCRIPTOR + 50] ^= 1
    other = [*heard[:at], Shown(heard[at].timestamp_ns, bytes(changed)), *heard[at + 1 :]]
    (found,) = differences(session(tmp_path, heard), session(tmp_path, other))
    assert "isochronous 0x81: byte 50" in found


def test_who_has_not_listened_at_all_differs(heard: list[Shown], tmp_path: Path) -> None:
    silent = session(tmp_path, [one for one in heard if not is_stream(one)])
    assert len(differences(session(tmp_path, heard), silent)) > 200
