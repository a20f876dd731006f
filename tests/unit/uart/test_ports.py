"""Which ports a device has, and that nothing a device sends can upset a driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.uart.chips import ACM, CH340, asked, configuration, device, only_port, vendor_port
from usbip_capture.uart.cdc_acm import CdcAcm
from usbip_capture.uart.ch34x import Ch34x
from usbip_capture.uart.cp210x import Cp210x
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.ftdi import Ftdi
from usbip_capture.uart.ports import find_ports, no_ports
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.usb.info import Speed

KEYBOARD = "09 04 00 00 01 03 01 01 00 09 21 1101 00 01 22 3f00 07 05 81 03 0800 0a"
STORAGE = "09 04 01 00 02 08 06 50 00 07 05 82 02 4000 00 07 05 02 02 4000 00"
SECOND_ACM = ACM.replace("08 0b 00", "08 0b 02").replace("09 04 00", "09 04 02").replace("09 04 01", "09 04 03")
SECOND_ACM = SECOND_ACM.replace("06 00 01", "06 02 03")


@pytest.mark.parametrize(
    ("vendor", "product", "descriptors", "kind"),
    [
        (0x303A, 0x1001, ACM, CdcAcm),  # ESP32 USB-Serial-JTAG
        (0x1A86, 0x55D4, ACM, CdcAcm),  # CH9102
        (0x2341, 0x0043, ACM, CdcAcm),
        (0x0403, 0x6001, vendor_port(0), Ftdi),
        (0x0403, 0xABCD, vendor_port(0), Ftdi),  # a customer's PID
        (0x10C4, 0xEA60, vendor_port(0), Cp210x),
        (0x2626, 0xEA60, vendor_port(0), Cp210x),
        (0x1A86, 0x7523, CH340, Ch34x),
        (0x4348, 0x5523, CH340, Ch34x),
        (0x10C4, 0x1234, ACM, CdcAcm),  # the vendor of a known chip, with a port of the class
    ],
)
def test_drivers(vendor: int, product: int, descriptors: str, kind: type[Driver]) -> None:
    port = only_port(device(vendor, product), descriptors)
    assert type(port.driver()) is kind
    assert str(port) == f"interface 0 ({kind.name})"


def test_endpoints_of_a_port() -> None:
    pipes = only_port(device(0x303A, 0x1001), ACM).pipes
    assert (pipes.interface, pipes.data_interface, pipes.interfaces) == (0, 1, (0, 1))
    assert (pipes.bulk_in.address, pipes.bulk_out.address, pipes.bulk_in.packet_size) == (0x82, 0x02, 64)
    assert pipes.notify is not None
    assert (pipes.notify.address, pipes.notify.packet_size) == (0x81, 8)
    assert only_port(device(0x0403, 0x6001), vendor_port(0)).pipes.notify is None
    high = only_port(device(0x0403, 0x6014, 0x900), vendor_port(0, 512), speed=Speed.HIGH).pipes
    assert high.bulk_in.packet_size == 512


def test_two_ports_of_the_class_beside_other_interfaces() -> None:
    other = KEYBOARD.replace("09 04 00", "09 04 04")
    ports = find_ports(device(0x1209, 1), configuration(other, SECOND_ACM, ACM), Speed.FULL)
    assert [(p.interface, p.pipes.interfaces) for p in ports] == [(0, (0, 1)), (2, (2, 3))]
    assert [p.pipes.index for p in ports] == [0, 1]


def test_a_network_adapter_is_not_a_serial_port() -> None:
    """RNDIS: class 2, subclass 2, protocol 0xff."""
    rndis = configuration(ACM.replace("02 02 01 00", "02 02 ff 00"))
    assert any((i.bInterfaceClass, i.bInterfaceProtocol) == (2, 0xFF) for i in rndis.interfaces)
    assert find_ports(device(0x0525, 0xA4A2), rndis, Speed.HIGH) == []


@pytest.mark.parametrize(
    "descriptors",
    [
        ACM.replace("05 24 06 00 01", ""),  # no union: the next interface
        ACM.replace("05 24 06 00 01", "05 24 06 00 07"),  # a union with what is not there
        "09 04 00 00 03 02 02 01 00 07 05 81 03 0800 10 07 05 82 02 4000 00 07 05 02 02 4000 00",  # all in one
    ],
)
def test_forgetful_firmware(descriptors: str) -> None:
    assert only_port(device(0x1209, 1), descriptors).pipes.bulk_in.address == 0x82


def test_bulk_endpoints_in_another_alternate_setting() -> None:
    ports = ACM.replace("09 04 01 00 02", "09 04 01 00 00 0a 00 00 00 09 04 01 01 02")
    driver = only_port(device(0x1209, 1), ports).driver()
    assert asked(driver.open()) == ["010b010001000000"]


def test_what_is_there_instead() -> None:
    found = configuration(KEYBOARD, STORAGE)
    assert find_ports(device(0x1209, 1), found, Speed.FULL) == []
    assert no_ports(found) == "no serial port that is known here; interface 0 is HID, 1 is mass storage"
    assert no_ports(configuration("")) == "no interfaces"
    assert find_ports(device(0x1209, 1), configuration(vendor_port(0)), Speed.FULL) == []
    assert find_ports(device(0x10C4, 0x8108), configuration(KEYBOARD), Speed.FULL) == []


@given(st.binary(max_size=120))
def test_any_configuration_can_be_searched(body: bytes) -> None:
    head = b"\x09\x02" + (9 + len(body)).to_bytes(2, "little") + bytes([2, 1, 0, 0x80, 50])
    parsed = parse_configuration(head + body)
    for vendor in (0x0403, 0x1209):
        find_ports(device(vendor, 1), parsed, Speed.HIGH)
    assert no_ports(parsed)


@given(st.sampled_from([Ftdi, Cp210x, Ch34x, CdcAcm]), st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_a_device_sends_is_taken(kind: type[Driver], messages: list[bytes]) -> None:
    driver = kind(only_port(device(0x0403, 0x6001, 0x0600), vendor_port(0)).pipes)
    for message in messages:
        for requests in (driver.identify(), driver.open(), driver.poll()):
            for request in requests:
                if request.reads:
                    driver.answered(request, message)
        driver.notified(message)
        assert len(driver.received(message)) <= len(message)
