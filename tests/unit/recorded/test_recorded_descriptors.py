"""Descriptors of a recording that do not fit what was done with the device, as in captures of others."""

from __future__ import annotations

from struct import pack

import pytest

from tests.builders.exchanges import BULK_IN, BULK_OUT, Conversation
from usbip_capture.recorded.conversation import RecordedDevice
from usbip_capture.recorded.descriptors import descriptors_of


def configuration(*endpoints: int) -> bytes:
    """With one interface that has these bulk endpoints."""
    body = pack("<9B", 9, 4, 0, 0, len(endpoints), 0xFF, 0, 0, 0)
    body += b"".join(pack("<BBBBHB", 7, 5, endpoint, 2, 64, 0) for endpoint in endpoints)
    return pack("<BBHBBBBB", 9, 2, 9 + len(body), 1, 1, 0, 0x80, 50) + body


@pytest.mark.parametrize(
    ("described", "sentences"),
    [
        ((BULK_IN, BULK_OUT), []),
        ((BULK_IN,), ["the descriptors do not have endpoints that were used, 0x02: they may be of a device that had"]),
        ((0x83, 0x04), ["the descriptors do not have endpoints that were used, 0x02, 0x81: they may be of a device"]),
    ],
)
def test_endpoints_that_descriptors_do_not_have_are_told(described: tuple[int, ...], sentences: list[str]) -> None:
    """USBPcap asks for those of the device that has a number when it begins; numbers are used again."""
    made = Conversation()
    made.control("80 06 0001 0000 1200", data=bytes.fromhex("12010002000000400912010000010000") + b"\0\1")
    made.control("80 06 0002 0000 ff00", data=configuration(*described))
    made.out(b"ask")
    made.inward(b"answer")
    missing = descriptors_of(RecordedDevice(1, 2, exchanges=made.exchanges)).missing
    assert [one[: len(sentence)] for one, sentence in zip(missing, sentences, strict=True)] == sentences


def test_what_is_read_in_part_first_does_not_vary() -> None:
    made = Conversation()
    for size in (4, 2, 12, 8):
        made.control("80 06 0203 0904 0c00", data=bytes((12, 3)) + b"a\0b\0c\0d\0e\0"[: size - 2])
    known = descriptors_of(RecordedDevice(1, 2, exchanges=made.exchanges))
    assert known.varying == set()
    assert known.answers[0x80, 0x0302, 0x0409] == bytes((12, 3)) + b"a\0b\0c\0d\0e\0"
