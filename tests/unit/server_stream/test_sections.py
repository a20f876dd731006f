"""Streams of a server, cut anywhere and one after the other, are one section: each device keeps its interface."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.pcapng_reader import CapturedInterface, read_capture, read_items
from usbip_capture.capture.shared_writer import NOTES_INTERFACE, SharedWriter
from usbip_capture.capture.sinks import StreamSink
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.records.pcapng import pack_drops
from usbip_capture.records.upper_pdu import pack_remark
from usbip_capture.server_stream.sections import JoinedSections
from usbip_capture.tap import Tapped
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import Urb

OTHER = replace(INFO, busid="1-2")


def stream(*infos: DeviceInfo, urbs: int = 2, note: str = "") -> bytes:
    """What a server sends: an interface for each device, with URBs on it."""
    out = io.BytesIO()
    writer = PcapWriter(out)
    for info in infos:
        device = Tapped(DemoDevice(), writer.add_usb_interface(info, server="pi"))
        for _ in range(urbs):
            device.run(Urb.control(set_configuration(1).pack()), 60)
        device.close()
    if note:
        writer.comment(note)
    writer.close()
    return out.getvalue()


def shared() -> bytes:
    """What a server sends to several: its first interface is that of notes."""
    out = io.BytesIO()
    SharedWriter(StreamSink(out)).close()
    return out.getvalue()


BOTH = stream(INFO, OTHER)


def read(data: bytes, folder: Path) -> list[tuple[str, str]]:
    path = folder / "joined.pcapng"
    path.write_bytes(data)
    return [(record.interface.name, record.interface.description) for record in read_capture(path)]


@given(st.lists(st.integers(1, len(BOTH) - 1), max_size=8))
def test_any_cut_gives_the_same_blocks(cuts: list[int]) -> None:
    sections, got, at = JoinedSections("test"), b"", 0
    for cut in [*sorted(cuts), len(BOTH)]:
        got += sections.feed(BOTH[at:cut])
        at = cut
    assert got == BOTH
    assert (sections.packets, sections.urbs) == (8, 4)


def test_a_device_keeps_its_interface_from_stream_to_stream(tmp_path: Path) -> None:
    sections = JoinedSections("test")
    data = sections.feed(stream(INFO))
    data += sections.note("lost", 5)
    sections.begin()
    data += sections.feed(stream(OTHER, INFO))  # in the other order
    seen = read(data, tmp_path)
    assert [name for name, _ in seen] == ["usbip0"] * 4 + ["notes0"] + ["usbip0"] * 4 + ["usbip0"] * 4
    kinds = [description.split()[2] for _, description in seen if description.startswith("USB/IP")]
    assert kinds == ["1-1"] * 4 + ["1-2"] * 4 + ["1-1"] * 4
    assert data.count(b"\x0a\x0d\x0d\x0a") == 1


def test_notes_of_the_server_and_ours_share_an_interface(tmp_path: Path) -> None:
    sections = JoinedSections("test")
    assert sections.note("early", 1) == b""
    data = sections.feed(stream(INFO)) + sections.note("ours", 2)
    assert {name for name, _ in read(data, tmp_path)} == {"usbip0", "notes0"}
    assert data.count(b"early") == data.count(b"ours") == 2  # as a packet, and as its comment


def test_half_a_block_of_a_lost_stream_is_dropped(tmp_path: Path) -> None:
    sections = JoinedSections("test")
    data = sections.feed(BOTH[:-30])
    sections.begin()
    data += sections.feed(BOTH)
    assert len(read(data, tmp_path)) == 16


@pytest.mark.parametrize("most", [1, 3, 8])
def test_it_is_full_after_so_many_packets(most: int, tmp_path: Path) -> None:
    sections = JoinedSections("test", most)
    assert len(read(sections.feed(BOTH), tmp_path)) == most
    assert sections.full


def test_where_nothing_has_come_it_is_a_capture_all_the_same(tmp_path: Path) -> None:
    sections = JoinedSections("test")
    sections.note("nothing came", 1)
    assert [name for name, _ in read(sections.end(), tmp_path)] == ["notes0"]
    assert sections.end() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        bytes(40),
        b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x1a\x2b\x3c\x4d" + bytes(12) + b"\x1c\0\0\0",
        BOTH[: int.from_bytes(BOTH[4:8], "little")] + b"\x06\0\0\0\x20\0\0\0\x09\0\0\0" + bytes(16) + b"\x20\0\0\0",
        b"\x06\0\0\0\xfc\xff\xff\xff" + bytes(40),
        b"\x06\0\0\0\x0c\0\0\0\x0c\0\0\0",
    ],
)
def test_what_is_not_a_capture_is_a_sentence(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="the server sends"):
        JoinedSections("test").feed(data)


@given(st.binary(max_size=200), st.integers(0, len(BOTH)))
def test_garbage_anywhere(garbage: bytes, at: int) -> None:
    sections = JoinedSections("test")
    try:
        sections.feed(BOTH[:at] + garbage + BOTH[at:])
    except RemoteProtocolError:
        pass


def test_drops_are_the_latest_count_of_each_stream_and_written_at_the_end(tmp_path: Path) -> None:
    sections = JoinedSections("test")
    data = sections.feed(shared())
    for count in (2, 5):
        assert sections.feed(pack_drops(NOTES_INTERFACE, count, count)) == b""  # it comes again and again
    assert (sections.dropped, sections.last_ns) == (5, 5)
    sections.begin()
    data += sections.feed(shared())
    assert sections.dropped == 5
    sections.feed(pack_drops(NOTES_INTERFACE, 9, 1))
    assert sections.dropped == 6
    path = tmp_path / "joined.pcapng"
    path.write_bytes(data + sections.end())
    interfaces = {item.name: item.dropped for item in [*read_items(path)] if isinstance(item, CapturedInterface)}
    assert interfaces["notes0"] == 6


def test_a_log_of_ours_is_an_interface_that_stays(tmp_path: Path) -> None:
    sections = JoinedSections("test", max_packets=6)
    log = sections.log_interface("syslog0", "log of the board")
    data = sections.log(log, [(1, pack_remark("early"), ())])
    assert data == b""
    data += sections.feed(stream(INFO, urbs=1))
    data += sections.log(log, [(2, pack_remark("later"), ["why"])])
    sections.begin()
    data += sections.feed(stream(INFO, urbs=1))
    assert [name for name, _ in read(data, tmp_path)] == ["syslog0", "usbip0", "usbip0", "syslog0", "usbip0", "usbip0"]
    assert sections.full
    assert sections.packets == 6
