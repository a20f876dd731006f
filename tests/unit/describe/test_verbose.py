"""Descriptors as lsusb prints them, whole texts; the tree; names."""

from __future__ import annotations

import cProfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.class_descriptors import CONFIGURATIONS, DAMAGED
from usbip_capture.demo.device import DESCRIPTORS, DemoDevice
from usbip_capture.describe.classes import string_indices
from usbip_capture.describe.naming import class_names, listed_name, speed_name
from usbip_capture.describe.reading import Description, read_description
from usbip_capture.describe.tree import ports_of, tree
from usbip_capture.describe.verbose import verbose
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.usb.bos import parse_bos
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

HID_AND_ENDPOINT = bytes.fromhex("09 21 1101 00 01 22 2000  07 05 81 03 0800 0a")
GOLDEN = Path(__file__).parent / "golden"


def demo() -> Description:
    device = DemoDevice()
    try:
        return read_description(DeviceHandle(device))
    finally:
        device.close()


def superspeed() -> Description:
    """A disk and an audio interface, with what is rare: companions, 9-byte endpoints, unknown descriptors."""
    configuration = bytes.fromhex(
        "09 02 0000 02 01 04 a0 32"
        "09 04 00 00 02 08 06 50 00"
        "07 05 81 02 0004 00  06 30 0f 00 0000"
        "07 05 02 02 0004 00  06 30 0f 00 0000"
        "09 04 01 00 01 01 01 00 05"
        "0a 24 01 0001 0a00 01 01 ee"
        "09 05 83 0d 4002 01 02 84  07 25 01 00 00 0000"
        "03 ff aa"
    )
    configuration = configuration[:2] + len(configuration).to_bytes(2, "little") + configuration[4:]
    device = DeviceDescriptor.parse(bytes.fromhex("12 01 0003 00 00 00 09 ffff efbe 3412 01 02 00 01"))
    info = DeviceInfo("2-1", 2, 7, Speed.SUPER, 0xFFFF, 0xBEEF, interfaces=(InterfaceInfo(8, 6, 80),))
    found = Description(info, device, [parse_configuration(configuration)], 1)
    found.strings = {1: "M\u00fcller", 2: "evil\x1b[31mname", 4: "\u6771\u4eac"}
    found.bos = bytes.fromhex(
        "05 0f 4600 04"
        "07 10 02 06000000"
        "0a 10 03 00 0e00 03 0a ff07"
        "14 10 04 00 00112233445566778899aabbccddeeff"
        "1c 10 05 00 df60ddd88945c74c9cd2659d9e648a9f 0000030a 0a00 20 00"
    )
    found.capabilities = parse_bos(found.bos)
    found.qualifier = bytes.fromhex("0a 06 0002 00 00 00 40 01 00")
    found.status = 2
    return found


def of_class(configuration: bytes) -> Description:
    device = DeviceDescriptor.parse(bytes.fromhex("12 01 0002 00 00 00 40 0912 0100 0001 00 00 00 01"))
    return Description(DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1), device, [parse_configuration(configuration)], 1)


CASES: dict[str, Callable[[], Description]] = {
    "demo": demo,
    "superspeed": superspeed,
    "damaged": partial(of_class, DAMAGED),
}
CASES |= {name: partial(of_class, raw) for name, raw in CONFIGURATIONS.items()}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    got = "\n".join(verbose(CASES[case]())) + "\n"
    assert got == (GOLDEN / f"{case}.txt").read_text()
    assert got.isprintable() or all(line.isprintable() for line in got.splitlines())


def test_the_report_descriptor_of_the_demo_is_read() -> None:
    found = demo()
    assert len(found.reports[2]) == 63
    assert found.status == 1
    assert found.strings[2] == "Demo device"


def test_the_work_grows_as_the_descriptors_do() -> None:
    """Twice the interfaces and report items, twice the calls of whatever is called."""

    def calls(count: int) -> int:
        pieces = b"".join(bytes([9, 4, number, 0, 1, 3, 0, 0, 0]) + HID_AND_ENDPOINT for number in range(count))
        found = of_class(bytes([9, 2, *(9 + len(pieces)).to_bytes(2, "little"), count, 1, 0, 0x80, 50]) + pieces)
        found.reports = dict.fromkeys(range(count), bytes.fromhex("05 01 09 06 a1 01 c0") * count)
        profile = cProfile.Profile()
        profile.runcall(verbose, found)
        return sum(entry.callcount for entry in profile.getstats())

    calls(60)  # names are remembered
    assert calls(60) < 4.2 * calls(30)
    found = of_class(CONFIGURATIONS["audio1"])
    found.reports = {0: b""}
    tracemalloc.start()
    verbose(found)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_tree() -> None:
    def info(busid: str, number: int) -> DeviceInfo:
        return DeviceInfo(busid, 1, number, Speed.FULL, 0x1D6B, number, interfaces=(InterfaceInfo(3, 1, 1),))

    devices = [info("1-2.3", 3), info("1-1", 2), info("10-1", 4), info("odd", 5), info("1-2.3.1", 6)]
    assert tree(devices, lambda device: f"n{device.devnum}") == [
        "/:  Bus 001",
        "    |__ Port 1: Dev 002, ID 1d6b:0002 n2, 12M",
        "        |__ If 0, Class=Human Interface Device",
        "    |__ Port 2: (hub)",
        "        |__ Port 3: Dev 003, ID 1d6b:0003 n3, 12M",
        "            |__ If 0, Class=Human Interface Device",
        "            |__ Port 1: Dev 006, ID 1d6b:0006 n6, 12M",
        "                |__ If 0, Class=Human Interface Device",
        "/:  Bus 010",
        "    |__ Port 1: Dev 004, ID 1d6b:0004 n4, 12M",
        "        |__ If 0, Class=Human Interface Device",
        "/:  odd: Dev 005, ID 1d6b:0005 n5, 12M",
        "    |__ If 0, Class=Human Interface Device",
    ]


def test_a_tree_with_the_ports_that_are_empty() -> None:
    """Where it is known how many a hub has; a bus with nothing has a line too."""
    devices = [replace(DESCRIPTORS.info(busid, 1, 7, Speed.FULL), interfaces=()) for busid in ("1-2", "1-4.2", "1-4.3")]
    hubs = {"usb1": 4, "usb2": 1, "1-4": 7, "1-9": 4, "usbx": 3}
    shown = tree(devices, lambda device: "", hubs)
    assert [line.partition(" Dev")[0] for line in shown] == [
        "/:  Bus 001",
        "    |__ Port 2:",
        "    |__ Port 4: (hub)",
        "        |__ Port 2:",
        "        |__ Port 3:",
        "        |__ Ports 1, 4-7: empty",
        "    |__ Ports 1, 3: empty",
        "/:  Bus 002",
        "    |__ Port 1: empty",
    ]


@pytest.mark.parametrize("busid", ["", "1", "a-1", "1-", "1-1.", "1-1.x", "1-\u00b2", "9999-1"])
def test_busids_that_name_no_ports(busid: str) -> None:
    assert ports_of(busid) is None


def test_names() -> None:
    assert listed_name(0x1D6B, 2) == "Linux Foundation 2.0 root hub"
    assert listed_name(0xFFFF, 0xBEEF) == ""
    by_device = DeviceInfo("1-1", 1, 1, Speed.HIGH, 1, 1, bDeviceClass=9, interfaces=(InterfaceInfo(9, 0, 1),))
    assert class_names(by_device) == ["Hub"]
    unknown = DeviceInfo("1-1", 1, 1, Speed.UNKNOWN, 1, 1, bDeviceClass=0x77)
    assert class_names(unknown) == ["class 0x77"]
    assert speed_name(Speed.UNKNOWN) == "unknown speed"


def test_strings_of_class_descriptors_are_asked_for() -> None:
    raw = "09 02 1f00 01 01 00 80 32  09 04 00 00 00 02 06 00 00  0d 24 0f 03" + "00" * 9
    network = parse_configuration(bytes.fromhex(raw))
    assert string_indices(network.interfaces[0]) == [3]


CLASSES = st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 2), (3, 1), (0x0B, 0), (0xFE, 1)])


@given(CLASSES, st.sampled_from([0, 0x20, 0x30]), st.lists(st.tuples(st.integers(0x21, 0x25), st.binary(max_size=60))))
def test_any_class_descriptors(code: tuple[int, int], protocol: int, pieces: list[tuple[int, bytes]]) -> None:
    raw = b"".join(bytes([len(data) + 2, kind]) + data for kind, data in pieces)
    raw = bytes([9, 2, 0, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, *code, protocol, 0]) + raw
    raw = raw[:2] + (len(raw) & 0xFFFF).to_bytes(2, "little") + raw[4:]
    for line in verbose(of_class(raw)):
        assert line.isprintable()
