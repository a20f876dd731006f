"""The same session in every form in which captures exist: the same device, the same conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.capture_files import FORMS, classic, packets_of
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
