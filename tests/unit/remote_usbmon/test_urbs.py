"""Records of a kernel's usbmon become URBs, and these become the same records again, on an interface of ours."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from tests.builders.capture_files import Shown, classic
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.recordings.packets import Packet
from usbip_capture.recordings.reading import open_capture, read_packets
from usbip_capture.recordings.stream import Stream
from usbip_capture.records.usbmon import UsbmonRecord
from usbip_capture.remote_usbmon import urbs
from usbip_capture.remote_usbmon.urbs import DESCRIPTORS, REFUSED, UrbFeed
from usbip_capture.usb.info import DeviceInfo, Speed

GOLDEN = Path(__file__).parents[2] / "golden"
_DEVICE = bytes.fromhex("120100020000000803040160000401020401")
_CONFIGURATION = bytes.fromhex("09022000010100a0320904000002ffffff000705810240000007050202400000")


def info(busnum: int = 1) -> DeviceInfo:
    return DeviceInfo("1-1", busnum, 2, Speed.HIGH, 0x0403, 0x6001)


def fed(packets: Iterable[Packet], path: Path, busnum: int = 1, capture_filter: str = "") -> list[CapturedRecord]:
    """What the capture has of these packets."""
    with PcapWriter(path, capture_filter=capture_filter) as writer:
        feed = UrbFeed(writer.add_usb_interface(info(busnum), server="ssh://pi"))
        for packet in packets:
            feed.packet(packet)
    return list(read_capture(path))


def golden(name: str) -> Iterator[Packet]:
    with open_capture(GOLDEN / name / "server-usbmon.pcap") as capture:
        yield from capture.packets


def without_ids(records: Iterable[UsbmonRecord]) -> list[dict[str, Any]]:
    """As they can be compared: ids are numbered in the order in which they are submitted."""
    numbers: dict[int, int] = {}
    found: list[dict[str, Any]] = []
    for record in records:
        if chr(record.type) == "S":
            numbers[record.id] = len(found)
        found.append({**asdict(record), "id": numbers.get(record.id)})
    return found


@pytest.mark.parametrize("name", sorted(path.parent.name for path in GOLDEN.glob("*/server-usbmon.pcap")))
def test_the_records_of_a_real_kernel(name: str, tmp_path: Path) -> None:
    asked = [
        UsbmonRecord.parse(portion[start:end])
        for _, _, portion, start, end, _, _ in golden(name)
        if portion[start + 11] == 2
    ]
    path = tmp_path / "capture.pcapng"
    found = [record.usb for record in fed(golden(name), path, asked[0].busnum) if record.usb is not None]
    assert len(found) > 20
    assert without_ids(found) == without_ids(asked)


def usbmon(
    number: int, event: str, kind: int, endpoint: int, *, devnum: int = 2, status: int = 0, length: int = 0,
    setup: bytes | None = None, interval: int = 0, start_frame: int = 0, flags: int = 0, data: bytes = b"",
    descriptors: Iterable[tuple[int, int, int]] = (), order: str = "<", mapped: bool = True,
) -> bytes:  # fmt: skip
    """A packet of usbmon as a kernel of this byte order makes it. mapped: with the longer header."""
    listed = list(descriptors)
    head = pack(
        order + "QBBBBHBBqiiII8s", number, ord(event), kind, endpoint, devnum, 1, 0 if setup else ord("-"), 0, 0, 0,
        status, length, len(data), setup or bytes(8),
    )  # fmt: skip
    more = pack(order + "iiII", interval, start_frame, flags, len(listed)) if mapped else b""
    return head + more + b"".join(pack(order + "iII4x", *each) for each in listed) + data


def packets(raws: Iterable[bytes], link_type: int = 220, order: str = "<") -> Iterator[Packet]:
    stream = io.BytesIO(classic([Shown(10**18 + at, raw) for at, raw in enumerate(raws)], link_type, order))
    return read_packets(Stream("a capture", lambda: stream.read(1000)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("link_type", "mapped"), [(220, True), (189, False)])
def test_other_kernels(tmp_path: Path, order: str, link_type: int, mapped: bool) -> None:
    """Big-endian ones, and a libpcap that has the shorter header only."""
    setup = bytes.fromhex("8006000100001200")
    raws = [
        usbmon(7, "S", 2, 0x80, status=-115, length=18, setup=setup, order=order, mapped=mapped),
        usbmon(7, "C", 2, 0x80, length=18, data=_DEVICE, order=order, mapped=mapped),
        usbmon(8, "S", 3, 0x02, status=-115, length=5, data=b"hello", order=order, mapped=mapped),
        usbmon(8, "C", 3, 0x02, status=-32, length=0, order=order, mapped=mapped),
    ]
    found = [record.usb for record in fed(packets(raws, link_type, order), tmp_path / "a.pcapng")]
    assert [(chr(r.type), r.epnum, r.status, r.length, r.data) for r in found if r] == [
        ("S", 0x80, -115, 18, b""), ("C", 0x80, 0, 18, _DEVICE), ("S", 2, -115, 5, b"hello"), ("C", 2, -32, 0, b""),
    ]  # fmt: skip
    assert found[0] is not None
    assert found[0].setup == setup


def test_what_was_in_flight_when_the_capture_began(tmp_path: Path) -> None:
    """Its submit is put before its completion, marked; a control transfer is not known without it, and is counted."""
    raws = [
        usbmon(1, "C", 1, 0x81, length=3, data=b"key", interval=8, flags=0x200),
        usbmon(2, "C", 2, 0x80, length=2, data=b"??"),
        usbmon(3, "C", 0, 0x82, length=4, data=b"ab..cd", descriptors=[(0, 0, 2), (-18, 2, 0), (0, 4, 2)]),
    ]
    path = tmp_path / "a.pcapng"
    with PcapWriter(path) as writer:
        feed = UrbFeed(writer.add_usb_interface(info(), server="ssh://pi"))
        for packet in packets(raws):
            feed.packet(packet)
        assert feed.strays == 1
    found = list(read_capture(path))
    assert [(chr(r.usb.type), r.usb.epnum, r.comments, r.usb.data) for r in found if r.usb] == [
        ("S", 0x81, [IN_FLIGHT], b""), ("C", 0x81, [IN_FLIGHT], b"key"),
        ("S", 0x82, [IN_FLIGHT], b""), ("C", 0x82, [IN_FLIGHT], b"ab\0\0cd"),
    ]  # fmt: skip


def test_refused_by_the_kernel(tmp_path: Path) -> None:
    raws = [
        usbmon(1, "S", 3, 0x81, status=-115, length=512),
        usbmon(1, "E", 3, 0x81, status=-28),
        usbmon(2, "S", 3, 0x81, devnum=3, status=-115, length=512),  # of another device
        b"short",
        usbmon(3, "X", 3, 0x81),
    ]
    found = fed(packets(raws), tmp_path / "a.pcapng")
    assert [(chr(r.usb.type), r.usb.status, r.comments) for r in found if r.usb] == [
        ("S", -115, []), ("C", -28, [REFUSED])
    ]  # fmt: skip


def test_data_that_usbmon_has_cut(tmp_path: Path) -> None:
    """Of long transfers it has a part only: the length stays that of the transfer."""
    raws = [
        usbmon(1, "S", 3, 0x02, status=-115, length=100_000, data=b"a" * 61_000),
        usbmon(1, "C", 3, 0x02, length=100_000),
        usbmon(2, "S", 3, 0x81, status=-115, length=100_000),
        usbmon(2, "C", 3, 0x81, length=100_000, data=b"b" * 61_000),
        usbmon(3, "S", 0, 0x82, status=-115, length=4000, setup=None, descriptors=[(-18, 0, 2000), (-18, 2000, 2000)]),
        usbmon(3, "C", 0, 0x82, length=4000, data=b"c" * 3000, descriptors=[(0, 0, 2000), (0, 2000, 2000)]),
    ]
    found = fed(packets(raws), tmp_path / "a.pcapng")
    shown = [(r.usb.length, r.usb.len_cap, r.original_length) for r in found if r.usb]
    assert shown[:4] == [
        (100_000, 61_000, 100_064), (100_000, 0, 64), (100_000, 0, 64), (100_000, 61_000, 100_064)
    ]  # fmt: skip
    assert found[5].usb is not None
    assert found[5].usb.data == b"c" * 3000


def test_the_capture_filter(tmp_path: Path) -> None:
    found = fed(golden("serial"), tmp_path / "a.pcapng", capture_filter="bulk and out")
    assert [r.usb.data for r in found if r.usb and chr(r.usb.type) == "S"] == [b"hello world\n"]
    assert {r.usb.epnum for r in found if r.usb} == {2}


@pytest.mark.parametrize(
    ("raw", "configurations"),
    [
        (_DEVICE + _CONFIGURATION, 1),
        (_DEVICE + _CONFIGURATION * 2, 2),
        (_DEVICE + _CONFIGURATION[:20], 1),
        (_DEVICE + b"\x09\x02\x00\x00\x00\x00\x00\x00\x00", 0),
        (_DEVICE, 0),
    ],
)
def test_descriptors_come_first_and_are_marked(tmp_path: Path, raw: bytes, configurations: int) -> None:
    path = tmp_path / "a.pcapng"
    with PcapWriter(path) as writer:
        UrbFeed(writer.add_usb_interface(info(), server="ssh://pi")).begin(raw, 1, 10**18)
    found = list(read_capture(path))
    assert all(DESCRIPTORS in record.comments for record in found)
    answers = [record.usb.data for record in found if record.usb and chr(record.usb.type) == "C"]
    assert b"".join(answers) == raw[: 18 + len(_CONFIGURATION) * configurations]
    assert len(answers) == 2 + configurations


def test_no_descriptors_are_known(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "a.pcapng") as writer:
        UrbFeed(writer.add_usb_interface(info(), server="ssh://pi")).begin(b"\x12\x01", 1, 10**18)
    assert not list(read_capture(tmp_path / "a.pcapng"))


def test_completions_that_never_come_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urbs, "MAX_IN_FLIGHT", 10)
    with PcapWriter(tmp_path / "a.pcapng") as writer:
        feed = UrbFeed(writer.add_usb_interface(info(), server="ssh://pi"))
        for packet in packets(usbmon(at, "S", 3, 0x81, status=-115, length=8) for at in range(100)):
            feed.packet(packet)
        assert len(feed._in_flight) == 10


def test_an_unlikely_number_of_isochronous_packets(tmp_path: Path) -> None:
    raw = usbmon(1, "S", 0, 0x82, status=-115, length=8, setup=pack("<ii", 0, 2**31 - 1))
    record = urbs.parse_record(220, "<", raw)
    assert record is not None
    assert len(urbs.submitted_urb(record).packets) == 1024


def test_what_is_not_of_usbmon(tmp_path: Path) -> None:
    with pytest.raises(RemoteProtocolError, match=r"not of usbmon: link type 1 \(Ethernet\)"):
        fed(packets([bytes(60)], 1), tmp_path / "a.pcapng")
