"""tshark decodes what we write: directions, matched requests, comments, nothing malformed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Completion, IsoPacket, TransferType, Urb

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

INFO = DeviceInfo("1-1", 1, 5, Speed.HIGH, 0x1209, 0x0001)
DEVICE = bytes.fromhex("1201000200000040 0912 0100 0001 000000 01")
# More than 128 packets are malformed to tshark, usbmon's own captures of them too: it counts by number_of_packets.
ISO = [IsoPacket(n * 32, 32) for n in range(128)]
ISO_DONE = [IsoPacket(n * 32, 32, 20 + n % 13, 0) for n in range(128)]
ISO_SIZE = sum(p.actual_length for p in ISO_DONE)

# URB, its completion, label; each makes a submit and a completion.
TRAFFIC = [
    (Urb.control(bytes.fromhex("8006000100001200")), Completion(0, 18, DEVICE), "enumeration"),
    (Urb.control(bytes.fromhex("0009010000000000")), Completion(0), "enumeration"),
    (Urb.control(bytes.fromhex("8006000600000a00")), Completion(-32), None),
    (Urb(TransferType.BULK, 0x02, 31, b"c" * 31), Completion(0, 31), None),
    (Urb(TransferType.BULK, 0x81, 300_000), Completion(0, 300_000, bytes(300_000)), None),
    (Urb(TransferType.BULK, 0x81, 512), Completion(-104), None),
    (Urb(TransferType.INTERRUPT, 0x83, 8, interval=8), Completion(0, 3, b"abc"), None),
    (Urb(TransferType.ISOCHRONOUS, 0x84, 4096, interval=1, packets=ISO),
     Completion(0, ISO_SIZE, bytes(ISO_SIZE), 17, 0, ISO_DONE), None),
    (Urb(TransferType.ISOCHRONOUS, 0x05, 64, bytes(64), interval=1, packets=ISO[:2]),
     Completion(0, 64, packets=[IsoPacket(0, 32, 32), IsoPacket(32, 32, 32)]), None),
]  # fmt: skip


def write(path: Path, snaplen: int = 262_144) -> None:
    with PcapWriter(path, snaplen=snaplen) as writer:
        channel = writer.add_usb_interface(INFO, server="pi", product="Thing")
        for urb, completion, label in TRAFFIC:
            run(channel, urb, completion, label)
            channel.comment("between two URBs")


def run(channel: UsbChannel, urb: Urb, completion: Completion, label: str | None) -> None:
    channel.label = label
    channel.completed(channel.submitted(urb), urb, completion)


def fields(path: Path, *names: str, only: str = "usb") -> list[list[str]]:
    """Fields of each frame that the filter lets through."""
    command = ["tshark", "-r", str(path), "-Y", only, "-T", "fields", "-E", "occurrence=f"]
    command += [part for name in names for part in ("-e", name)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in out.splitlines()]


@pytest.mark.parametrize("snaplen", [262_144, 400, 64])
def test_no_frame_is_malformed(tmp_path: Path, snaplen: int) -> None:
    write(tmp_path / "capture.pcapng", snaplen)
    assert len(fields(tmp_path / "capture.pcapng", "frame.number")) == 2 * len(TRAFFIC)
    assert fields(tmp_path / "capture.pcapng", "frame.number", only="_ws.malformed || _ws.lua.error") == []


def test_directions_and_matches(tmp_path: Path) -> None:
    write(tmp_path / "capture.pcapng")
    rows = fields(
        tmp_path / "capture.pcapng",
        "usb.src", "usb.dst", "usb.urb_type", "usb.transfer_type", "usb.endpoint_address", "usb.request_in",
        "usb.urb_status", "usb.urb_len",
    )  # fmt: skip
    expected = []
    for number, (urb, completion, _) in enumerate(TRAFFIC):
        device = f"1.5.{urb.endpoint & 15}"
        kind, endpoint = f"0x{urb.transfer_type:02x}", f"0x{urb.endpoint:02x}"
        sizes = str(urb.length), str(completion.actual_length)
        expected.append(["host", device, "'S'", kind, endpoint, "", "-115", sizes[0]])
        expected.append([device, "host", "'C'", kind, endpoint, str(2 * number + 1), str(completion.status), sizes[1]])
    assert rows == expected


def test_what_tshark_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    write(path)
    assert fields(path, "usb.idVendor", "usb.idProduct", only="usb.idVendor") == [["0x1209", "0x0001"]]
    names = fields(path, "frame.interface_name", "frame.interface_description")
    assert names == [["usbip0", "USB/IP pi 1-1 1209:0001 Thing"]] * len(names)
    assert fields(path, "frame.number", only='frame.comment == "enumeration"') == [["1"], ["2"], ["3"], ["4"]]
    commented = fields(path, "frame.number", only='usb && frame.comment == "between two URBs"')
    assert commented == [[str(2 * n + 1)] for n in range(1, len(TRAFFIC))]
    lengths = fields(path, "frame.cap_len", "frame.len", only="usb.urb_len == 300000 && usb.urb_type == 'C'")
    assert lengths == [["262112", "300064"]]
    iso = fields(path, "usb.iso.numdesc", "usb.iso.error_count", only="usb.transfer_type == 0")
    assert iso == [["128", "0"], ["128", "0"], ["2", "0"], ["2", "0"]]
    assert fields(path, "frame.number", only="usb.capdata && usb.transfer_type == 0") == []
