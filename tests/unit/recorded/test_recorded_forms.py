"""The same session in every form in which captures exist: the same device, the same conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.capture_files import FORMS, Shown, classic, packets_of, snapped
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.usb.info import Speed

NAMES = ["keyboard", "serial", "stall", "storage", "unplug", "detach-busy"]


def recordings(path: Path, raw: bytes) -> list[Recording]:
    path.write_bytes(raw)
    return read_recordings(path)


def differences(first: Recording, second: Recording) -> list[str]:
    return list(lines(compare(first.exchanges, second.exchanges, (first.known, second.known))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_form_has_the_same_conversation(name: str, form: str, tmp_path: Path) -> None:
    packets = packets_of(name)
    first = recordings(tmp_path / "a", classic(packets, USB_LINUX_MMAPPED))
    second = recordings(tmp_path / "b", FORMS[form](packets))
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert not differences(one, other)
        assert not differences(other, one)
        assert str(one.info) == str(other.info)
        # What tells a keyboard of high speed, its interval as it is in force, is in link type 220 only.
        assert other.info.speed in (one.info.speed, Speed.FULL)
        assert one.known == other.known


@pytest.mark.parametrize("length", [64 + 32, 64 + 512])
def test_a_capture_that_was_cut_is_equal_as_far_as_it_goes(length: int, tmp_path: Path) -> None:
    packets = packets_of("storage")
    (whole,) = recordings(tmp_path / "a", classic(packets, USB_LINUX_MMAPPED))
    (cut,) = recordings(tmp_path / "b", snapped(packets, length))
    assert any(one.cut and not one.endpoint & 0x80 for one in cut.exchanges)
    assert not differences(whole, cut)
    assert not differences(cut, whole)


def test_what_a_capture_that_was_cut_still_has_differs(tmp_path: Path) -> None:
    packets = packets_of("storage")
    at = next(at for at, packet in enumerate(packets) if b"block 000" in packet.data and packet.data[8:9] == b"S")
    other = list(packets)
    other[at] = Shown(packets[at].timestamp_ns, packets[at].data.replace(b"block", b"clock", 1))
    (first,) = recordings(tmp_path / "a", snapped(packets, 96))
    (second,) = recordings(tmp_path / "b", snapped(other, 96))
    assert differences(first, second)
