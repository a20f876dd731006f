"""`usb`: descriptors as devices really send them, endpoints that follow the host's requests, setup packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.demo import device as demo
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.usb import bos, class_descriptors, setup
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration, split_descriptors
from usbip_capture.usb.endpoints import EndpointMap, polling_interval
from usbip_capture.usb.info import Speed
from usbip_capture.usb.setup import ClearHalt, PortReset, SetConfiguration, SetInterface, Setup, classify
from usbip_capture.usb.strings import pack_string, parse_langids, parse_string
from usbip_capture.usb.urb import TransferType

DEMO = demo.DESCRIPTORS.configurations[0]
# A microphone: 9-byte audio endpoints, class-specific descriptors after interfaces and endpoints.
AUDIO = bytes.fromhex(
    "09 02 5c00 02 01 00 80 32"
    "09 04 00 00 00 01 01 00 00"
    "09 24 01 0001 1e00 01 01"
    "09 04 01 00 00 01 02 00 00"
    "09 04 01 01 01 01 02 00 00"
    "07 24 01 02 01 0100"
    "0b 24 02 01 02 02 10 01 44ac00"
    "09 05 81 05 c000 01 07 82"
    "07 25 01 00 00 0000"
    "0d 05 02 05 c000 04 00 00 aabbccdd"
)
# A SuperSpeed disk.
DISK = bytes.fromhex(
    "09 02 2c00 01 01 00 c0 00"
    "09 04 00 00 02 08 06 50 00"
    "07 05 81 02 0004 00 06 30 0f 00 0000"
    "07 05 02 02 0004 00 06 30 0f 00 0000"
)


def test_every_field_of_a_device_descriptor() -> None:
    raw = bytes(range(1, 19))
    device = DeviceDescriptor.parse(raw + b"more")
    assert (device.bLength, device.bcdUSB, device.bMaxPacketSize0) == (1, 0x0403, 8)
    assert (device.idVendor, device.idProduct, device.bcdDevice) == (0x0A09, 0x0C0B, 0x0E0D)
    assert (device.iManufacturer, device.iProduct, device.iSerialNumber, device.bNumConfigurations) == (15, 16, 17, 18)
    assert device.pack() == raw


def test_the_demo_is_consistent() -> None:
    configuration = parse_configuration(DEMO)
    assert configuration.wTotalLength == len(DEMO)
    assert len({i.bInterfaceNumber for i in configuration.interfaces}) == configuration.bNumInterfaces
    assert all(i.bNumEndpoints == len(i.endpoints) for i in configuration.interfaces)
    assert [(a.bFirstInterface, a.bInterfaceCount) for a in configuration.associations] == [(0, 2)]
    hid = configuration.interfaces[2].hid
    assert hid is not None
    assert hid.report_length == len(demo.DESCRIPTORS.reports[2])
    kinds = [f.bDescriptorSubtype for f in configuration.interfaces[0].functional]
    assert kinds == [0, 1, 2, 6]
    assert configuration.interfaces[0].functional[3].data == bytes([0, 1])
    assert demo.DESCRIPTORS.bos[2:4] == len(demo.DESCRIPTORS.bos).to_bytes(2, "little")


def test_extra_descriptors_stay_where_they_were() -> None:
    configuration = parse_configuration(AUDIO)
    control, off, on = configuration.interfaces
    assert control.extra_descriptors == bytes.fromhex("0924010001 1e000101")
    assert off.extra_descriptors == b""
    assert on.extra_descriptors == bytes.fromhex("07240102010100 0b24020102021001 44ac00")
    first, second = on.endpoints
    assert (first.bRefresh, first.bSynchAddress) == (7, 0x82)
    assert first.extra_descriptors == bytes.fromhex("07250100000000")
    assert second.extra_descriptors == bytes.fromhex("aabbccdd")


def test_superspeed_companions() -> None:
    (disk,) = parse_configuration(DISK).interfaces
    companion = disk.endpoints[0].companion
    assert companion == class_descriptors.SuperSpeedCompanion(15, 0, 0)
    assert disk.endpoints[0].extra_descriptors == bytes.fromhex("06300f000000")


@pytest.mark.parametrize(
    ("junk", "kept"),
    [("00", "00"), ("01ff", "01ff"), ("ff0412", "ff0412"), ("03ff2a", "03ff2a"), ("0304", "0304")],
    ids=["length 0", "length 1", "longer than the data", "of a vendor", "cut interface"],
)
def test_junk_at_the_end_is_kept(junk: str, kept: str) -> None:
    raw = bytearray(DISK + bytes.fromhex(junk))
    raw[2] = len(raw)
    configuration = parse_configuration(raw)
    assert configuration.interfaces[-1].endpoints[-1].extra_descriptors.endswith(bytes.fromhex(kept))


def test_an_endpoint_without_an_interface_is_extra() -> None:
    configuration = parse_configuration(bytes.fromhex("09 02 1000 00 01 00 80 32  07 05 81 02 4000 00"))
    assert configuration.interfaces == []
    assert configuration.extra_descriptors == bytes.fromhex("07058102400000")


@pytest.mark.parametrize("raw", [b"", bytes(8), bytes(18)], ids=["empty", "8 bytes", "other type"])
def test_what_is_no_configuration(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_configuration(raw)


@pytest.mark.parametrize("raw", [DEMO, AUDIO, DISK], ids=["demo", "audio", "disk"])
def test_any_truncation_parses_and_loses_nothing(raw: bytes) -> None:
    for size in range(9, len(raw) + 1):
        configuration = parse_configuration(raw[:size])
        interfaces = configuration.interfaces
        kept = 9 + len(configuration.extra_descriptors)
        kept += sum(9 + len(i.extra_descriptors) for i in interfaces)
        endpoints = [e for i in interfaces for e in i.endpoints]
        kept += sum(min(e.bLength, 9 if e.bLength >= 9 else 7) + len(e.extra_descriptors) for e in endpoints)
        assert kept == size


@given(st.binary(max_size=200))
def test_bytes_of_any_kind(raw: bytes) -> None:
    assert b"".join(split_descriptors(raw)) == raw
    for parse in (DeviceDescriptor.parse, parse_configuration, bos.parse_bos):
        try:
            parse(raw)
        except RemoteProtocolError:
            pass
    configuration = parse_configuration(bytes.fromhex("09 02 ff00 01 01 00 80 32") + raw)
    endpoints = EndpointMap(configuration, Speed.HIGH)
    endpoints.follow(bytes.fromhex("0009010000000000"))
    assert all(e.packet_size >= 0 and e.interval >= 0 for e in endpoints)
    for interface in configuration.interfaces:
        assert isinstance(interface.functional, list)
    parse_string(raw)
    parse_langids(raw)


def test_bos() -> None:
    webusb = bytes.fromhex("18 10 05 00 38b60834 a909 a047 8bfd a0768815b665 0001 01 01")
    found = bos.parse_bos(bytes.fromhex("05 0f 2400 02  07 10 02 02000000") + webusb)
    assert found[0] == bos.DeviceCapability(bos.USB_2_0_EXTENSION, bytes.fromhex("02000000"))
    assert found[1].uuid == bos.WEBUSB


@pytest.mark.parametrize("text", ["", "Demo", "Größe ✓", "x" * 126])
def test_strings(text: str) -> None:
    assert parse_string(pack_string(text)) == text


def test_endpoints_follow_the_host() -> None:
    endpoints = EndpointMap(None, Speed.HIGH)
    endpoints.add_configuration(parse_configuration(DEMO))
    assert list(endpoints) == []
    endpoints.follow(setup.set_configuration(1).pack())
    assert {e.address for e in endpoints} == {0x81, 0x82, 0x02, 0x83, 0x04, 0x84}
    endpoints.follow(setup.set_interface(3, 1).pack())
    iso = endpoints.find(0x85)
    assert iso is not None
    assert (iso.transfer_type, iso.packet_size, iso.interval) == (TransferType.ISOCHRONOUS, 64, 8)
    assert endpoints.find(0x84) is None
    endpoints.follow(setup.set_interface(3, 9).pack())
    assert endpoints.find(0x85) is not None
    endpoints.follow(setup.set_configuration(0).pack())
    assert list(endpoints) == []


INT, ISO = TransferType.INTERRUPT, TransferType.ISOCHRONOUS


@pytest.mark.parametrize(
    ("kind", "speed", "b_interval", "expected"),
    [
        (TransferType.BULK, Speed.HIGH, 9, 0),
        (INT, Speed.FULL, 10, 8),
        (INT, Speed.LOW, 255, 128),
        (INT, Speed.HIGH, 7, 64),
        (INT, Speed.HIGH, 16, 8192),
        (INT, Speed.SUPER, 16, 32768),
        (INT, Speed.FULL, 0, 1),
        (ISO, Speed.FULL, 1, 1),
        (ISO, Speed.FULL, 16, 1024),
        (ISO, Speed.HIGH, 4, 8),
        (ISO, Speed.HIGH, 0, 1),
    ],
)
def test_intervals_as_linux_submits_them(kind: TransferType, speed: Speed, b_interval: int, expected: int) -> None:
    assert polling_interval(kind, b_interval, speed) == expected


def test_high_bandwidth_packet_size() -> None:
    raw = bytes.fromhex("09 02 1900 01 01 00 80 32  09 04 00 00 01 ff 00 00 00  07 05 81 05 0014 01")
    (endpoint,) = EndpointMap(parse_configuration(raw), Speed.HIGH)
    assert endpoint.packet_size == 3 * 1024


@pytest.mark.parametrize(
    ("raw", "action"),
    [
        ("00 09 0200 0000 0000", SetConfiguration(2)),
        ("01 0b 0300 0400 0000", SetInterface(4, 3)),
        ("02 01 0000 8100 0000", ClearHalt(0x81)),
        ("23 03 0400 0200 0000", PortReset(2)),
        ("02 01 0100 8100 0000", None),
        ("23 03 0800 0200 0000", None),
        ("80 06 0001 0000 1200", None),
        ("21 09 0002 0000 0100", None),
        ("40 09 0100 0000 0000", None),
        ("00 ff 0100 0000 0000", None),
    ],
)
def test_requests_that_are_not_data(raw: str, action: object) -> None:
    assert classify(bytes.fromhex(raw)) == action


def test_setup_layout() -> None:
    packet = Setup(0x01, 0x02, 0x0403, 0x0605, 0x0807)
    assert packet.pack() == bytes(range(1, 9))
    assert Setup.unpack(packet.pack()) == packet
