"""FTDI: divisors as FTDI's AN232B-05 lists them, status bytes in every packet."""

from __future__ import annotations

import pytest

from tests.unit.uart.chips import answer, asked, configuration, device, only_port, vendor_port
from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.ftdi import baud_divisor
from usbip_capture.uart.ports import find_ports
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
from usbip_capture.usb.info import Speed

AM, BM, C, R, H, QUAD, SINGLE_H, X = 0x0200, 0x0400, 0x0500, 0x0600, 0x0700, 0x0800, 0x0900, 0x1000


def chip(release: int = R, packet: int = 64) -> Driver:
    return only_port(device(0x0403, 0x6001, release), vendor_port(0, packet), speed=Speed.HIGH).driver()


@pytest.mark.parametrize(
    ("baudrate", "value", "index"),
    [
        (300, 0x2710, 0),  # AN232B-05, section 5
        (600, 0x1388, 0),
        (1200, 0x09C4, 0),
        (2400, 0x04E2, 0),
        (4800, 0x0271, 0),
        (9600, 0x4138, 0),
        (19200, 0x809C, 0),
        (38400, 0xC04E, 0),
        (57600, 0xC034, 0),  # 52.125, the nearest to 52.083
        (115200, 0x001A, 0),
        (230400, 0x000D, 0),
        (460800, 0x4006, 0),
        (921600, 0x8003, 0),
        (1_000_000, 3, 0),
        (1_500_000, 2, 0),
        (2_000_000, 1, 0),
        (3_000_000, 0, 0),
        (14400, 0x00D0, 1),  # 208.375: the code of 3/8 does not fit into wValue
        (250000, 12, 0),
        (31250, 96, 0),
        (74880, 0xC028, 0),  # the speed of an ESP8266's boot messages: 40.125
    ],
)
def test_divisors_of_three_megahertz(baudrate: int, value: int, index: int) -> None:
    assert baud_divisor(baudrate, R) == value | index << 16


@pytest.mark.parametrize(
    ("baudrate", "encoded"),
    [
        (12_000_000, 0x20000),
        (8_000_000, 0x20001),
        (6_000_000, 0x20002),
        (3_000_000, 0x20004),
        (921600, 0x2000D),
        (115200, 0x2C068),  # 104.125
        (9600, 0x204E2),
        (1200, 0x22710),
        (1199, 0x0C9C6),  # below, the slow clock: 2502.125
        (300, 0x02710),
    ],
)
def test_divisors_of_twelve_megahertz(baudrate: int, encoded: int) -> None:
    assert baud_divisor(baudrate, H) == encoded


def test_the_oldest_chip_has_fewer_fractions() -> None:
    assert baud_divisor(14400, AM) == 0x80D0  # 208.25, as AN232B-05 lists it for the FT8U232AM


@pytest.mark.parametrize(("baudrate", "release"), [(2_500_000, R), (3_200_000, X), (1, R), (100, BM), (20_000_000, H)])
def test_speeds_that_a_chip_cannot_reach(baudrate: int, release: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"instead of {baudrate}"):
        baud_divisor(baudrate, release)


def test_opening() -> None:
    driver = chip()
    assert asked(driver.open()) == ["4000000000000000"]
    assert asked(driver.apply(None, LineSettings(115200))) == [
        "40031a0000000000",  # speed
        "4004080000000000",  # 8N1
        "4002000000000000",  # no flow control
        "4009100000000000",  # latency 16 ms
    ]
    assert asked(driver.set_lines(True, True)) == ["4001030300000000"]


def test_only_what_changes_is_sent() -> None:
    driver, old = chip(), LineSettings(115200)
    assert driver.apply(old, old) == []
    assert asked(driver.apply(old, LineSettings(9600))) == ["4003384100000000"]
    assert asked(driver.apply(old, LineSettings(115200, 7, "E", 2))) == ["4004071200000000"]
    assert asked(driver.apply(old, LineSettings(115200, low_latency=True))) == ["4009010000000000"]


def test_flow_control_is_in_the_chip_one_kind_at_a_time() -> None:
    driver, old = chip(), LineSettings()
    assert asked(driver.apply(old, LineSettings(rtscts=True))) == ["4002000000010000"]
    assert driver.in_chip == {"rtscts"}
    assert asked(driver.apply(old, LineSettings(dsrdtr=True))) == ["4002000000020000"]
    assert asked(driver.apply(old, LineSettings(xonxoff=True))) == ["4002111300040000"]
    assert driver.in_chip == {"xonxoff"}
    driver.apply(old, LineSettings(rtscts=True, xonxoff=True))
    assert driver.in_chip == {"rtscts"}
    driver.apply(LineSettings(rtscts=True), old)
    assert driver.in_chip == frozenset()


def test_a_break_keeps_the_frame() -> None:
    driver = chip()
    driver.apply(None, LineSettings(9600, 7, "O"))
    assert asked(driver.set_break(True)) == ["4004074100000000"]
    assert asked(driver.set_break(False)) == ["4004070100000000"]


def test_lines_of_both_kinds_and_purges() -> None:
    driver = chip()
    assert asked(driver.set_lines(True, False)) == ["4001010300000000"]
    assert asked(driver.set_lines(False, True)) == ["4001020300000000"]
    assert asked(driver.purge(True, True)) == ["4000020000000000", "4000010000000000"]
    assert asked(driver.purge(rx=True, tx=False)) == ["4000020000000000"]  # libftdi's SIO_TCIFLUSH
    assert driver.purge(False, False) == []


@pytest.mark.parametrize(("release", "product", "ports"), [(C, 0x6010, 2), (H, 0x6010, 2), (QUAD, 0x6011, 4)])
def test_each_port_of_a_larger_chip_has_its_channel(release: int, product: int, ports: int) -> None:
    found = find_ports(
        device(0x0403, product, release), configuration(*(vendor_port(n) for n in range(ports))), Speed.FULL
    )
    assert [p.interface for p in found] == list(range(ports))
    for number, port in enumerate(found):
        driver = port.driver()
        assert driver.open()[0].setup.wIndex == number + 1
        speed = driver.apply(None, LineSettings(14400))[0].setup
        assert speed.wIndex == number + 1 | (0x100 if release == C else 0x300)
        assert driver.apply(LineSettings(), LineSettings(rtscts=True))[0].setup.wIndex == number + 1 | 0x100


@pytest.mark.parametrize("release", [SINGLE_H, X])
def test_newer_single_chips_are_channel_one(release: int) -> None:
    assert chip(release).set_lines(True, True)[0].setup.wIndex == 1


def test_status_bytes_go_out_of_each_packet_of_a_transfer() -> None:
    driver = chip(packet=64)
    full = bytes.fromhex("0160") + bytes(range(62))
    assert driver.received(full + full + bytes.fromhex("0160") + b"end") == bytes(range(62)) * 2 + b"end"
    assert driver.received(bytes.fromhex("0160")) == b""
    assert driver.received(full + bytes.fromhex("0160")) == bytes(range(62))
    assert driver.received(b"") == b""
    assert driver.received(b"\x01") == b""


def test_packets_are_as_long_as_those_of_the_endpoint() -> None:
    driver = chip(H, packet=512)
    full = bytes.fromhex("0160") + bytes(510)
    assert driver.received(full + bytes.fromhex("0160") + b"!") == bytes(510) + b"!"


def test_modem_lines_and_errors() -> None:
    driver = chip()
    driver.received(bytes.fromhex("f160"))
    assert driver.lines == ModemLines(True, True, True, True)
    driver.received(bytes.fromhex("1160"))
    assert driver.lines == ModemLines(cts=True)
    for status in ("1162", "1164", "1168", "1170"):
        driver.received(bytes.fromhex(status))
    assert driver.errors == LineErrors(1, 1, 1, 1)
    driver.received(bytes.fromhex("1170"))  # still the same break
    assert driver.errors.breaks == 1
    driver.received(bytes.fromhex("1164 aa"))
    driver.received(bytes.fromhex("1164 aa"))  # each with a byte of its own
    assert driver.errors.parity == 3


def test_lines_at_the_start_are_asked_for() -> None:
    driver = chip()
    requests = driver.poll()
    assert asked(requests) == ["c005000000000200"]
    answer(driver, requests, "3060")
    assert driver.lines == ModemLines(cts=True, dsr=True)
    answer(driver, requests, "")
    assert driver.lines == ModemLines(cts=True, dsr=True)


def test_six_bits_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="7 or 8"):
        chip().apply(None, LineSettings(9600, 6))
