"""`list -v` against the real `lsusb -v`, of devices made of descriptors and answers only."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.builders.class_descriptors import CONFIGURATIONS
from tests.oracles import real_lsusb
from tests.oracles.real_lsusb import lsusb
from usbip_capture.demo.device import DESCRIPTORS
from usbip_capture.describe.reading import Description, read_description
from usbip_capture.describe.verbose import verbose
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.simulated.lsusb import parse_lsusb
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup

DEVICE = bytes.fromhex("12 01 0002 00 00 00 40 0912 0100 0001 00 00 00 01")
QUALIFIER = bytes.fromhex("0a 06 0002 ef 02 01 40 01 00")
#: Names that depend on whose list of USB ids is newer.
_NAMED = re.compile(r"( +(?:b\w*(?:Class|Protocol)|id(?:Vendor|Product)) +\w+) .*")
_UNOPENED = "Couldn't open device, some information will be missing"

KEYBOARD = DESCRIPTORS.reports[2]
GAMEPAD = bytes.fromhex(
    "05010905 a101 8501 0530 0501 0930 0931 1581 257f 3500 463b01 6514 5500 7508 9502 8102 050919012910"
    "1500 2501 7501 9510 8102 a4 b4 a102 06 00ff 0901 a180 c0 a107 c0 c0 0902 a900 960001 b20301"
    "27ffffff7f 17000000 80 0b 0600 0c00 55 0e 66 0110 66 1310 65f1 65f0 6606 00 67 e121d000 14 c0"
)


def lines(text: str) -> list[str]:
    """What there is to compare: the descriptors."""
    shown = [_NAMED.sub(r"\1", line.rstrip()) for line in text.splitlines() if line.strip()]
    return [line for line in shown if not line.startswith("Bus ") and line != _UNOPENED and "iMacAddress" not in line]


def hid(*lengths: int, country: int = 9) -> bytes:
    """A configuration with a HID interface that has report descriptors of such lengths."""
    reports = b"".join(bytes([0x22]) + length.to_bytes(2, "little") for length in lengths)
    body = bytes.fromhex("09 04 00 00 01 03 01 01 00") + bytes([6 + len(reports), 0x21, 0x11, 1, country, len(lengths)])
    body += reports + bytes.fromhex("07 05 81 03 0800 0a")
    return bytes([9, 2, *(9 + len(body)).to_bytes(2, "little"), 1, 1, 0, 0x80, 50]) + body


def compared(descriptors: Descriptors, speed: Speed, folder: Path) -> None:
    """What is printed of a device that answers requests is what lsusb prints."""
    device = SimulatedDevice(descriptors.info("1-1", 1, 2, speed), descriptors)
    try:
        ours = verbose(read_description(DeviceHandle(device)))
    finally:
        device.close()
    (configuration,) = descriptors.configurations
    answers = {
        Setup(0x81, 6, 0x2200, interface.bInterfaceNumber, interface.hid.report_length): descriptors.reports[
            interface.bInterfaceNumber
        ]
        for interface in parse_configuration(configuration).interfaces
        if interface.hid is not None
    }
    if descriptors.bos:
        answers |= {Setup(0x80, 6, 0x0F00, 0, 5): BOS[:5], Setup(0x80, 6, 0x0F00, 0, len(BOS)): BOS, URL: NO_URL}
    if descriptors.qualifier:
        answers[real_lsusb.QUALIFIER] = descriptors.qualifier
    answers[real_lsusb.STATUS] = bytes([configuration[7] >> 6 & 1, 0])
    rate = {Speed.LOW: 1, Speed.FULL: 12, Speed.HIGH: 480}[speed]
    assert lines("\n".join(ours)) == lines(lsusb(descriptors.device + configuration, folder, rate, answers))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_as_lsusb_prints_it(name: str, tmp_path: Path) -> None:
    info = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1)
    found = Description(info, DeviceDescriptor.parse(DEVICE), [parse_configuration(CONFIGURATIONS[name])], 1)
    assert lines("\n".join(verbose(found))) == lines(lsusb(DEVICE + CONFIGURATIONS[name], tmp_path, 480))


@pytest.mark.parametrize("report", [KEYBOARD, GAMEPAD], ids=["keyboard", "gamepad"])
def test_report_descriptors_as_lsusb_decodes_them(report: bytes, tmp_path: Path) -> None:
    compared(Descriptors(DEVICE, [hid(len(report))], reports={0: report}), Speed.FULL, tmp_path)


def test_random_items_as_lsusb_decodes_them(tmp_path: Path) -> None:
    chance = random.Random(14)
    report = b""
    for tag in (tag for tag in range(0, 0x100, 4) for _ in range(6)):
        size = chance.randrange(4)
        # Usages have other names in newer lists.
        data = bytes([3]) + bytes(3) if tag & 0x0C == 8 or tag == 4 else chance.randbytes(4)
        report += bytes([tag | size]) + data[: (0, 1, 2, 4)[size]]
    compared(Descriptors(DEVICE, [hid(len(report))], reports={0: report}), Speed.HIGH, tmp_path)


@pytest.mark.parametrize("country", [0, 10, 15, 33, 35, 36, 0x33, 255])
def test_countries_as_lsusb_names_them(country: int, tmp_path: Path) -> None:
    raw = hid(len(KEYBOARD), country=country)
    compared(Descriptors(DEVICE, [raw], reports={0: KEYBOARD}), Speed.LOW, tmp_path)


@pytest.mark.parametrize("speed", [Speed.FULL, Speed.HIGH])
@pytest.mark.parametrize("version", [0x0110, 0x0200])
def test_qualifiers_as_lsusb_prints_them(version: int, speed: Speed, tmp_path: Path) -> None:
    """Of devices of USB 2.0 at any speed: lsusb asks no others."""
    device = DEVICE[:2] + version.to_bytes(2, "little") + DEVICE[4:]
    compared(Descriptors(device, [CONFIGURATIONS["audio1"]], qualifier=QUALIFIER), speed, tmp_path)


BOS = bytes.fromhex(
    "05 0f 6900 06  07 10 02 1ef40000  0a 10 03 02 0e00 03 0a ff07"
    "14 10 04 00 00112233445566778899aabbccddeeff  18 10 05 00 38b60834a909a0478bfda0768815b665 0001 21 00"
    "1c 10 05 00 df60ddd88945c74c9cd2659d9e648a9f 0000030a 0a00 20 00  0b 10 66 0102030405060708"
)
# lsusb asks for the URL of the landing page of WebUSB; this one is empty.
URL, NO_URL = Setup(0xC0, 0x21, 0, 2, 255), bytes([3, 3, 1])


def test_a_binary_object_store(tmp_path: Path) -> None:
    assert len(BOS) == BOS[2]
    device = DEVICE[:2] + bytes([1, 2]) + DEVICE[4:]
    compared(Descriptors(device, [CONFIGURATIONS["audio1"]], bos=BOS), Speed.HIGH, tmp_path)


def test_bits_of_a_configuration(tmp_path: Path) -> None:
    raw = bytes.fromhex("09 02 1900 01 01 00 50 32  09 04 00 00 01 ff 00 00 00  07 05 81 03 001c 0a")
    compared(Descriptors(DEVICE, [raw]), Speed.HIGH, tmp_path)


@pytest.mark.parametrize("report", [KEYBOARD, GAMEPAD], ids=["keyboard", "gamepad"])
def test_what_lsusb_decodes_is_encoded_again(report: bytes, tmp_path: Path) -> None:
    known = Descriptors(DEVICE, [hid(len(report))], reports={0: report}, qualifier=QUALIFIER)
    answers = {Setup(0x81, 6, 0x2200, 0, len(report)): report, real_lsusb.QUALIFIER: QUALIFIER}
    parsed, _ = parse_lsusb(lsusb(DEVICE + known.configurations[0], tmp_path, 12, answers))
    assert parsed.configurations == known.configurations
    assert parsed.reports == known.reports
    assert parsed.qualifier == QUALIFIER
    assert not parsed.left_out
