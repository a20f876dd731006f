"""`capture.reader` and `capture.summary`: captures told to people, and files that are none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usbip_capture.capture.summary import read_capture, summarize
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb

INFO = DeviceInfo("1-1.2", 1, 5, Speed.FULL, 0x1209, 0x0001)
DESCRIPTOR = bytes.fromhex("1201000200000040 5c04 3412 0001 000000 01")
GET_DEVICE = Urb.control(bytes.fromhex("8006000100001200"))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Two interfaces, a little of everything."""
    path = tmp_path / "capture.pcapng"
    with PcapWriter(path) as writer:
        first = writer.add_usb_interface(INFO, server="pi", product="Thing")
        second = writer.add_usb_interface(INFO, server="demo")
        iso_in = [IsoPacket(0, 8), IsoPacket(8, 8)]
        iso_done = [IsoPacket(0, 8, 8, 0), IsoPacket(8, 8, 0, -71)]
        for urb, completion in [
            (GET_DEVICE, Completion(0, 18, DESCRIPTOR)),
            (Urb.control(bytes.fromhex("0009010000000000")), Completion(0)),
            (Urb(TransferType.BULK, 0x02, 31, bytes(31)), Completion(0, 31)),
            (Urb(TransferType.BULK, 0x81, 512), Completion(0, 100, bytes(100))),
            (Urb(TransferType.BULK, 0x81, 512), Completion(-32)),
            (Urb(TransferType.BULK, 0x81, 512), Completion(-104)),
            (Urb(TransferType.ISOCHRONOUS, 0x83, 16, packets=iso_in), Completion(0, 8, bytes(8), packets=iso_done)),
        ]:
            first.completed(first.submitted(urb), urb, completion)
        second.submitted(GET_DEVICE)
        second.comment("the end")
        second.device(INFO)
        assert writer.flush(10)
    return path


def test_summary(capture: Path) -> None:
    lines = summarize(capture)
    seconds = lines[1].rsplit(", ", 1)[1]
    assert lines == [
        "usbip0: USB/IP pi 1-1.2 1209:0001 Thing",
        f"  14 packets, 0 dropped, {seconds}",
        "  device descriptor: 045c:1234",
        "  endpoint 0x80 control IN: 1 URB, 18 bytes, 0 errors",
        "  endpoint 0x00 control OUT: 1 URB, 0 bytes, 0 errors",
        "  endpoint 0x81 bulk IN: 3 URBs, 100 bytes, 1 error",
        "  endpoint 0x02 bulk OUT: 1 URB, 31 bytes, 0 errors",
        "  endpoint 0x83 isochronous IN: 1 URB, 8 bytes, 1 error",
        "usbip1: USB/IP demo 1-1.2 1209:0001",
        "  1 packet, 0 dropped, 0.000 s",
        "  endpoint 0x80 control IN: 1 URB, 0 bytes, 0 errors",
        "notes0: usbip-capture: remarks that no packet could carry",
        "  1 packet, 0.000 s",
        "  the end",
    ]


def test_headers_that_were_cut_are_still_counted(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "short.pcapng", snaplen=20) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        channel.completed(channel.submitted(GET_DEVICE), GET_DEVICE, Completion(0, 18, DESCRIPTOR))
    assert [(r.usb, len(r.data), r.original_length) for r in read_capture(tmp_path / "short.pcapng")] == [
        (None, 20, 64), (None, 20, 82)
    ]  # fmt: skip
    assert summarize(tmp_path / "short.pcapng")[1].startswith("  2 packets, 0 dropped")


def test_what_was_cut_off_is_told_as_far_as_it_goes(capture: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcapng"
    cut.write_bytes(capture.read_bytes()[:-250])
    lines = summarize(cut)
    assert lines[0] == "usbip0: USB/IP pi 1-1.2 1209:0001 Thing"
    assert "packets," in lines[1]
    assert lines[-1].startswith(f"the rest is left out: {cut} is not a pcapng capture, or it is damaged")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"GIF89a...", "is not a pcapng capture"),
        (bytes.fromhex("d4c3b2a1 02000400 00000000 00000000 00000400 dc000000"), "is not a pcapng capture"),
        (bytes.fromhex("0a0d0d0a 00000000 4d3c2b1a"), "is not a pcapng capture"),
        (bytes.fromhex("0a0d0d0a ffffffff 4d3c2b1a") + bytes(100), "is not a pcapng capture"),
        (bytes.fromhex("0a0d0d0a 1c000000 4d3c2b1a 01000000"), "is not a pcapng capture"),
    ],
)
def test_files_that_are_no_captures(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=sentence) as caught:
        summarize(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [summarize, lambda path: list(read_capture(path))])
def test_files_that_cannot_be_read(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(CaptureError, match="missing cannot be read: No such file"):
        read(tmp_path / "missing")
    with pytest.raises(CaptureError, match="cannot be read: Is a directory"):
        read(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_damaged_captures_give_nothing_but_capture_errors(capture: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(capture.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    (tmp_path / "damaged").write_bytes(raw)
    with contextlib.suppress(CaptureError):
        assert summarize(tmp_path / "damaged")
