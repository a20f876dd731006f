"""Texts of lsusb: units and names of their fields, and that no edit of a text ends in anything but a device or a
sentence with file and line."""

from __future__ import annotations

import cProfile
import random
import re
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from tests.builders.class_descriptors import CONFIGURATIONS
from tests.integration.test_lsusb import GADGET
from usbip_capture.cli.exits import exit_code
from usbip_capture.demo.device import DESCRIPTORS, DemoDevice
from usbip_capture.demo.lsusb import add_directory, open_device
from usbip_capture.describe.reading import Description, read_description
from usbip_capture.describe.verbose import verbose
from usbip_capture.errors import FileFormatError
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.server import Server
from usbip_capture.servers.address import ServerAddress as Remote
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.simulated.lsusb import parse_lsusb, read_lsusb
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Notebook
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.report_items import COLLECTION, report_items

DISK = bytes.fromhex(
    "09 02 3900 01 01 00 80 0c  09 04 00 00 03 08 06 50 00  07 05 81 02 0004 00  06 30 0f 04 0000"
    "07 05 02 02 0004 00  06 30 0f 00 0000  07 05 83 03 1000 04  06 30 00 00 1000"
)


def text_of(device: SimulatedDevice) -> str:
    try:
        return "\n".join(verbose(read_description(DeviceHandle(device))))
    finally:
        device.close()


def text_with(configuration: bytes, bcdUSB: int = 0x0300) -> str:
    """The text of a device of class 0 with such a configuration."""
    device = DeviceDescriptor(18, 1, bcdUSB, 0, 0, 0, 9, 0x1209, 1, 0x0100, 0, 0, 0, 1)
    info = DeviceInfo("2-1", 2, 7, Speed.SUPER, 0x1209, 1)
    return "\n".join(verbose(Description(info, device, [parse_configuration(configuration)], 1)))


def of(described: Descriptors, speed: Speed = Speed.FULL) -> str:
    return text_of(SimulatedDevice(described.info("1-1", 1, 2, speed), described))


TEXTS = {
    "gadget": GADGET,
    "keyboard": text_of(DemoDevice()),
    "disk": text_with(DISK),
    "FTDI": of(ftdi([Notebook()]).descriptors),
    "CP2105": of(cp210x([Notebook(), Notebook()], "CP2105").descriptors),
    "audio": text_with(CONFIGURATIONS["audio1"], 0x0200),
    "functions": text_with(CONFIGURATIONS["functions"], 0x0200),
}


@pytest.mark.parametrize(
    ("version", "printed", "packed"), [("3.00", 96, 12), ("3.20", 896, 112), ("2.10", 96, 48), ("3.00", 126, 63)]
)
def test_the_unit_of_max_power_depends_on_the_version(version: str, printed: int, packed: int) -> None:
    text = GADGET.replace("bcdUSB               2.00", f"bcdUSB               {version}")
    parsed, _ = parse_lsusb(text.replace("MaxPower                2mA", f"MaxPower              {printed}mA"))
    assert parsed.configurations[0][8] == packed


@pytest.mark.parametrize(
    ("printed", "wrong", "sentence"),
    [
        ("MaxPower                2mA", "MaxPower             2040mA", "MaxPower 2040mA is more than the 510mA"),
        ("MaxPower                2mA", "MaxPower                3mA", "MaxPower 3mA is not a multiple of 2mA"),
        ("bMaxPacketSize0        64", "bMaxPacketSize0      6464", "bMaxPacketSize0 6464 does not fit"),
        ("idProduct          0x0001", "idProduct         0x10001", "idProduct 0x10001 does not fit into 2"),
        ("bcdUSB               2.00", "bcdUSB              two", "bcdUSB two is not a number"),
        ("    bNumInterfaces          2\n", "", "bConfigurationValue stands where"),
        ("bDataInterface          1", "bDataInterface        256", "bDataInterface 256 does not fit into 1 byte"),
        ("** UNRECOGNIZED:  03 41 07", "** UNRECOGNIZED:  03 41 zz", "not pairs of hexadecimal digits"),
        ("** UNRECOGNIZED:  03 41 07", "** UNRECOGNIZED:  04 41 07", "3 bytes claims to have 4"),
        ("  Configuration Descriptor:\n", "", "bLength is indented otherwise"),
        ("bNumConfigurations      1", "bNumConfigurations      2", "bNumConfigurations is 2, but 1"),
        ("A maker of things", "A" * 127, "iManufacturer is longer than a string of 126"),
        ("Device Descriptor:\n", "Device Descriptor:\n  bBad 1\n", "bBad stands where"),
    ],
)
def test_what_cannot_be_packed_is_an_error_with_file_and_line(
    printed: str, wrong: str, sentence: str, tmp_path: Path
) -> None:
    assert printed in GADGET
    path = tmp_path / "1-3.lsusb"
    path.write_text(GADGET.replace(printed, wrong))
    with pytest.raises(FileFormatError, match=re.escape(sentence)) as caught:
        read_lsusb(path)
    at = GADGET[: GADGET.index(printed)].count("\n") + 1 + wrong.count("\n") // 2
    assert str(caught.value).startswith(f"{path}: line {at}: ")
    assert exit_code(caught.value) == 1


@pytest.mark.parametrize(
    ("line", "speed"),
    [
        ("Low Speed (1Mbps)", Speed.LOW),
        ("Full Speed (12Mbps)", Speed.FULL),
        ("High Speed (480Mbps)", Speed.HIGH),
        ("SuperSpeed (5Gbps)", Speed.SUPER),
        ("SuperSpeed+ (10Gbps)", Speed.SUPER_PLUS),
        ("SuperSpeed++ (20Gbps)", Speed.SUPER_PLUS),
        ("Unknown", Speed.HIGH),
    ],
)
def test_speeds_as_lsusb_names_them(line: str, speed: Speed) -> None:
    assert parse_lsusb(f"Bus 001 Device 007: ID 1209:0001\nNegotiated speed: {line}\n{GADGET}")[1] == speed


def test_a_speed_that_usb_does_not_have() -> None:
    with pytest.raises(FileFormatError, match="line 1: Warp 9 is not a speed"):
        parse_lsusb(f"Negotiated speed: Warp 9\n{GADGET}")


def test_companions_of_superspeed_are_rebuilt() -> None:
    assert parse_lsusb(TEXTS["disk"])[0].configurations == [DISK]


@pytest.mark.parametrize("name", ["audio1", "audio1-continuous", "functions"])
def test_class_descriptors_come_back_or_are_named(name: str) -> None:
    parsed, _ = parse_lsusb(text_with(CONFIGURATIONS[name], 0x0200))
    rebuilt = parsed.configurations[0] == CONFIGURATIONS[name]
    assert rebuilt != bool(parsed.left_out)
    assert all(re.match(r"line \d+: the .+ is left out", each) for each in parsed.left_out)


def test_a_binary_object_store_is_named_as_left_out() -> None:
    parsed, _ = parse_lsusb(GADGET + "\nBinary Object Store Descriptor:\n  bLength                 5\n")
    assert any("the Binary Object Store Descriptor is left out" in each for each in parsed.left_out)


def test_the_qualifier_comes_back() -> None:
    qualifier = bytes.fromhex("0a 06 0002 ef 02 01 40 01 00")
    with closing(DemoDevice()) as device:
        found = read_description(DeviceHandle(device))
    found.qualifier = qualifier
    assert parse_lsusb("\n".join(verbose(found)))[0].qualifier == qualifier


def test_a_configuration_too_long_for_its_length_field() -> None:
    raw = "    ** UNRECOGNIZED: " + " ff" * 255 + "\n"
    with pytest.raises(FileFormatError, match=r"line 18: a configuration of \d+ bytes is longer than 65535"):
        parse_lsusb(GADGET.replace("    Interface Descriptor:\n", raw * 300 + "    Interface Descriptor:\n", 1))


def test_bad_files_are_all_named_and_nothing_is_exported(tmp_path: Path) -> None:
    for name, text in {"1-1": GADGET, "1-2": "junk", "1-3": GADGET[:600]}.items():
        (tmp_path / f"{name}.lsusb").write_text(text)
    server = Server()
    with pytest.raises(FileFormatError, match=r"1-2\.lsusb: no device descriptor.*\(nor can these be used: 1-3\.lsusb"):
        add_directory(server, tmp_path)
    try:
        assert Remote("127.0.0.1", server.listen("127.0.0.1", 0)[1]).devices() == []
    finally:
        server.close()


def test_a_file_that_is_too_long_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "1-1.lsusb").write_text(GADGET + "\n" * (1 << 20))
    with pytest.raises(FileFormatError, match=r"1-1\.lsusb is longer than 1 MiB"):
        read_lsusb(tmp_path / "1-1.lsusb")


def edited(text: str, chance: random.Random) -> str:
    """The text with one to three things changed as by hand."""
    lines = text.split("\n")
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        kind = chance.randrange(7)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, chance.choice(lines))
        elif kind == 2:
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 3:
            digits = str(chance.choice([0, 1, 2, 4, 9, 255, 256, 65536, 10**30, -1]))
            lines[at] = re.sub(r"\b\d+\b", digits, lines[at], count=1)
        elif kind == 4 and lines[at]:
            where = chance.randrange(len(lines[at]))
            lines[at] = lines[at][:where] + chance.choice("0x:9 f\u00e9(") + lines[at][where + 1 :]
        elif kind == 5:
            lines[at] = lines[at][chance.randrange(4) :]
        else:
            del lines[at + 1 :]
        lines = lines or [""]
    return "\n".join(lines)


@pytest.mark.parametrize("name", TEXTS)
def test_an_edit_makes_a_device_or_a_sentence_with_file_and_line(name: str, tmp_path: Path) -> None:
    chance = random.Random(name)
    path = tmp_path / "7-1.lsusb"
    devices, sentences = 0, []
    for _ in range(150):
        path.write_text(edited(TEXTS[name], chance), encoding="utf-8")
        try:
            info, descriptors = read_lsusb(path)
        except FileFormatError as error:
            sentences.append(str(error))
            continue
        device = open_device(info, descriptors)
        try:
            assert verbose(read_description(DeviceHandle(device)))
            devices += 1
        finally:
            device.close()
    assert devices
    assert sentences
    for sentence in sentences:
        assert re.search(r"7-1\.lsusb: (line \d+: |no device descriptor)", sentence), sentence
        assert sentence.isprintable()


@pytest.mark.parametrize("length", [1, 2, 20, 21, 50, 63, 64, 65, 500])
@pytest.mark.parametrize("triple", [(3, 1, 1), (3, 1, 2), (3, 0, 0)])
def test_report_descriptors_that_lsusb_could_not_read_are_stood_in_for(
    triple: tuple[int, int, int], length: int
) -> None:
    body = bytes([9, 4, 0, 0, 1, *triple, 0, 9, 0x21, 0x11, 1, 0, 1, 0x22, length & 0xFF, length >> 8])
    body += bytes.fromhex("07 05 81 03 0800 0a")
    raw = bytes([9, 2, *(9 + len(body)).to_bytes(2, "little"), 1, 1, 0, 0x80, 50]) + body
    text = text_with(raw, 0x0200)
    assert "UNAVAILABLE" in text
    report = parse_lsusb(text)[0].reports[0]
    assert len(report) == length
    items = list(report_items(report))
    assert b"".join(item.pack() for item in items) == report
    assert [item.tag for item in items].count(COLLECTION) == [item.tag for item in items].count(0xC0)


def test_a_report_descriptor_that_does_not_fit_its_length() -> None:
    text = TEXTS["keyboard"]
    with pytest.raises(FileFormatError, match=r"line \d+: the report descriptor has 61 bytes here, not 63"):
        parse_lsusb(text.replace("            Item(Global): Report Size, data= [ 0x03 ] 3\n", ""))
    with pytest.raises(FileFormatError, match=r"line \d+: this is not an item"):
        parse_lsusb(text.replace("Report Size", "Report Fish"))
    with pytest.raises(FileFormatError, match=r"has 63 bytes, but wDescriptorLength is 62"):
        parse_lsusb(text.replace("wDescriptorLength      63", "wDescriptorLength      62"))


def test_report_descriptors_as_bytes() -> None:
    """As `list -v` printed them before it decoded them."""
    keyboard = DESCRIPTORS.reports[2]
    text = TEXTS["keyboard"]
    start, end = text.index("            Item("), text.index("      Endpoint", text.index("End Collection"))
    rows = "".join(f"            {keyboard[at : at + 16].hex(' ')}\n" for at in range(0, len(keyboard), 16))
    assert parse_lsusb(text[:start] + rows + text[end:])[0].reports[2] == keyboard


def test_each_line_is_looked_at_once() -> None:
    """Time grows as the text does: twice the interfaces, twice the calls of whatever is called."""

    interface = "    Interface Descriptor:\n      bLength 9\n      bDescriptorType 4\n      bInterfaceNumber "
    tail = "".join(f"      {name} 0\n" for name in (
        "bAlternateSetting", "bNumEndpoints", "bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol",
        "iInterface"))  # fmt: skip

    def calls(count: int) -> int:
        body = "".join(f"{interface}{number % 256}\n{tail}" for number in range(count))
        profile = cProfile.Profile()
        profile.runcall(parse_lsusb, GADGET[: GADGET.index("    Interface Descriptor:")] + body)
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(800) < 2.1 * calls(400)


def test_memory_is_a_small_multiple_of_the_text() -> None:
    raw = "    ** UNRECOGNIZED: " + " ff" * 255 + "\n"
    text = GADGET.replace("    Interface Descriptor:\n", raw * 250 + "    Interface Descriptor:\n", 1)
    tracemalloc.start()
    try:
        parse_lsusb(text)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * len(text)
