"""A filter on a capture: what is written, what is counted, and pairs that stay together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.recording import INFO, run
from tests.oracles.pcapng_reader import CapturedInterface, read_capture, read_items
from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.demo.device import DESCRIPTORS
from usbip_capture.filters.language import FilterError
from usbip_capture.usb.urb import Completion, TransferType, Urb

KEYS = Urb(TransferType.INTERRUPT, 0x83, 8, interval=4)
SERIAL = Urb(TransferType.BULK, 0x82, 512)
STALLED = Urb.control(bytes.fromhex("8006000600000a00"))
CONFIGURATION = DESCRIPTORS.configurations[0]


def read_configuration(channel: UsbChannel) -> None:
    length = len(CONFIGURATION)
    get = Urb.control(bytes.fromhex("800600020000") + length.to_bytes(2, "little"))
    run(channel, get, Completion(0, length, CONFIGURATION))
    run(channel, Urb.control(bytes.fromhex("0009010000000000")), Completion(0))


def capture(target: Path, capture_filter: str) -> tuple[PcapWriter, list[tuple[str, int, int]]]:
    with PcapWriter(target, capture_filter=capture_filter) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        channel.label = "descriptors"
        read_configuration(channel)
        channel.label = None
        run(channel, KEYS, Completion(0, 8, bytes(8)))
        run(channel, STALLED, Completion(-32))
        run(channel, SERIAL, Completion(0, 3, b"abc"))
        channel.submitted(SERIAL)  # it never comes back
    return writer, [(chr(r.usb.type), r.usb.epnum & 0x8F, r.usb.status) for r in read_capture(target) if r.usb]


CASES = [
    ("bulk", [("S", 0x82, -115), ("C", 0x82, 0), ("S", 0x82, -115)]),
    ("bulk and length > 0", [("S", 0x82, -115), ("C", 0x82, 0)]),
    ("status == stall", [("S", 0x80, -115), ("C", 0x80, -32)]),
    ("status == -115", [("S", 0x82, -115)]),
    ("class == hid", [("S", 0x83, -115), ("C", 0x83, 0)]),
    ("class == 0x0a and status == 0", [("S", 0x82, -115), ("C", 0x82, 0)]),
    ("device == 9-9", []),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_what_passes(tmp_path: Path, text: str, expected: list[tuple[str, int, int]]) -> None:
    writer, events = capture(tmp_path / "capture.pcapng", text)
    assert events == expected
    assert (writer.received, writer.dropped) == (11, 0)
    assert writer.filtered == 11 - len(expected)
    interface = next(iter(read_items(tmp_path / "capture.pcapng")))
    assert isinstance(interface, CapturedInterface)


def test_descriptors_pass_by_their_name(tmp_path: Path) -> None:
    _, events = capture(tmp_path / "capture.pcapng", "bulk or descriptors")
    assert [event[1] for event in events].count(0x80) == 2
    assert len(events) == 4 + 3


def test_times_are_those_of_the_events(tmp_path: Path) -> None:
    target = tmp_path / "capture.pcapng"
    with PcapWriter(target, capture_filter="bulk and status == 0") as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        first = channel.submitted(SERIAL)
        second = channel.submitted(SERIAL)
        channel.completed(second, SERIAL, Completion(-32))
        channel.completed(first, SERIAL, Completion(0, 1, b"x"))
    records = [record for record in read_capture(target) if record.usb]
    assert [record.usb.id for record in records if record.usb] == [first, first]
    assert records[0].timestamp_ns <= records[1].timestamp_ns


def test_what_is_filtered_takes_no_room(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "capture.pcapng", capture_filter="status != 0", queue_bytes=20_000) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        for _ in range(1000):
            run(channel, KEYS, Completion(0, 8, bytes(8)))
        assert (writer.dropped, writer.filtered) == (0, 2000)
        run(channel, STALLED, Completion(-32))
    assert (writer.dropped, writer.written) == (0, 2)


def test_a_remark_waits_for_a_packet_that_passes(tmp_path: Path) -> None:
    target = tmp_path / "capture.pcapng"
    with PcapWriter(target, capture_filter="bulk") as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        writer.comment("here")
        run(channel, KEYS, Completion(0, 8, bytes(8)))
        run(channel, SERIAL, Completion(0, 3, b"abc"))
    assert [record.comments for record in read_capture(target)] == [["here"], []]


def test_a_filter_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FilterError):
        PcapWriter(tmp_path / "capture.pcapng", capture_filter="bulk and")
    assert not (tmp_path / "capture.pcapng").exists()
