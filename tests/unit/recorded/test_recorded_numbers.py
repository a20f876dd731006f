"""Two devices that had the same number, one after the other, as where numbers are used again at once."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest

from tests.builders.answers_again import assert_answers_again
from tests.builders.capture_files import FORMS, Shown, packets_of
from usbip_capture.replayed.recording import Recording, read_recordings

_NUMBER = slice(11, 14)  # devnum and busnum
HOUR = 3600 * 10**9


def numbered(name: str, hours: int) -> list[Shown]:
    """A session with device 9 on bus 3."""
    packets = packets_of(name)
    begin = packets[0].timestamp_ns
    found = []
    for stamp, data in packets:
        changed = bytearray(data)
        if data[11] > 1:  # not the root hub
            changed[_NUMBER] = pack("<BH", 9, 3)
            found.append(Shown(stamp - begin + hours * HOUR, bytes(changed)))
    return found


def read(form: str, packets: list[Shown], tmp_path: Path) -> list[Recording]:
    path = tmp_path / "session"
    path.write_bytes(FORMS[form](packets))
    return read_recordings(path)


@pytest.mark.parametrize("form", ["220, pcapng", "189", "249", "249, stages", "249, only submits of OUT"])
def test_each_has_its_own_conversation(form: str, tmp_path: Path) -> None:
    names = ["serial", "keyboard", "storage"]
    parts = [numbered(name, hours) for hours, name in enumerate(names)]
    found = read(form, [packet for part in parts for packet in part], tmp_path)
    alone = [read(form, part, tmp_path)[0] for part in parts]
    assert [one.info.busid for one in found] == ["3-9", "3-10", "3-11"]
    for one, other in zip(found, alone, strict=True):
        assert one.known.device == other.known.device
        assert one.known.configurations == other.known.configurations
        assert len(one.exchanges) - len(other.exchanges) in (0, 1)  # the request that another device has answered
        assert_answers_again(one)


def test_a_device_that_comes_again_is_one(tmp_path: Path) -> None:
    parts = numbered("keyboard", 1) + numbered("keyboard", 2)
    (found,) = read("220, pcapng", parts, tmp_path)
    assert_answers_again(found)
