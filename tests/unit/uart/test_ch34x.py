"""CH34x: register values as they are seen on the bus with Linux and WCH's own driver."""

from __future__ import annotations

import pytest

from tests.unit.uart.chips import CH340, answer, asked, device, only_port
from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.ch34x import Ch34x, baud_divisor
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines


def chip(version: str = "3100", break_register: str = "9fee") -> Ch34x:
    """An opened port; an empty break register is one that stalls."""
    driver = only_port(device(0x1A86, 0x7523, 0x0264, kind=0xFF), CH340).driver()
    assert isinstance(driver, Ch34x)
    answer(driver, driver.identify(), version, break_register)
    return driver


def test_opening() -> None:
    driver = chip()
    assert asked(driver.identify()) == ["c05f000000000200", "c095050000000200"]
    assert asked(driver.open()) == ["40a1000000000000"]
    assert asked(driver.apply(None, LineSettings(115200))) == [
        "409a121383cc0000",
        "409a1825c3000000",
        "409a272700000000",
    ]
    assert asked(driver.set_lines(True, True)) == ["40a49fff00000000"]


@pytest.mark.parametrize(
    ("baudrate", "divisor"),
    [
        (50, 0x1600),
        (300, 0xD900),
        (1200, 0xB201),
        (2400, 0xD901),
        (4800, 0x6402),
        (9600, 0xB202),
        (19200, 0xD902),
        (38400, 0x6403),
        (57600, 0x9803),
        (115200, 0xCC03),
        (230400, 0xE603),
        (460800, 0xF303),
        (921600, 0xF307),
        (1_000_000, 0xFA03),
        (1_500_000, 0xFC03),
        (2_000_000, 0xFD03),
        (3_000_000, 0xFE03),
        (74880, 0xB003),
        (31250, 0x4003),
        (250_000, 0xE803),
        (1_333_333, 0xF707),
    ],
)
def test_speeds(baudrate: int, divisor: int) -> None:
    encoded = baud_divisor(baudrate, limited=False)
    assert encoded == divisor
    fact, ps, count = encoded >> 2 & 1, encoded & 3, 0x100 - (encoded >> 8)
    assert 48_000_000 / (1 << 12 - 3 * ps - fact) / count == pytest.approx(baudrate, rel=0.004)


def test_limited_chips_have_fact_with_the_fastest_prescaler_only() -> None:
    for baudrate in (110, 600, 1800, 14400, 20000, 921600):
        encoded = baud_divisor(baudrate, limited=True)
        assert encoded & 7 in (0, 1, 2, 3, 7)


@pytest.mark.parametrize("baudrate", [40, 2_500_000, 4_000_000])
def test_speeds_that_the_chip_cannot_reach(baudrate: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"instead of {baudrate}"):
        chip().apply(None, LineSettings(baudrate))


def test_only_what_changes_is_sent() -> None:
    driver, old = chip(), LineSettings(115200)
    assert driver.apply(old, old) == []
    assert driver.apply(old, LineSettings(115200, xonxoff=True)) == []
    assert asked(driver.apply(old, LineSettings(9600))) == ["409a121382b20000"]
    assert asked(driver.apply(old, LineSettings(115200, rtscts=True))) == ["409a272701010000"]
    assert driver.in_chip == {"rtscts"}


@pytest.mark.parametrize(
    ("bytesize", "parity", "stopbits", "line_control"),
    [(8, "N", 1, 0xC3), (7, "E", 2, 0xDE), (5, "O", 1, 0xC8), (6, "M", 1, 0xE9), (8, "S", 1, 0xFB)],
)
def test_frames(bytesize: int, parity: str, stopbits: float, line_control: int) -> None:
    old = LineSettings(9600, 8, "N", 1.5)
    (request,) = chip().apply(old, LineSettings(9600, bytesize, parity, stopbits))
    assert asked([request]) == [f"409a1825{line_control:02x}000000"]


def test_old_versions() -> None:
    old = chip("2700")
    # Bit 7 is the other way round, and there is no line control register.
    assert asked(old.apply(None, LineSettings(115200))) == ["409a121303cc0000", "409a272700000000"]
    with pytest.raises(LocalProtocolError, match="0x27"):
        old.apply(None, LineSettings(115200, 7))
    assert asked(chip("2800").apply(LineSettings(), LineSettings(115200))) == ["409a121383cc0000"]


def test_lines_are_inverted() -> None:
    driver = chip()
    assert asked(driver.set_lines(True, False)) == ["40a4dfff00000000"]
    assert asked(driver.set_lines(False, True)) == ["40a4bfff00000000"]
    assert asked(driver.set_lines(False, False)) == ["40a4ffff00000000"]


def test_a_break_keeps_the_frame() -> None:
    driver = chip(break_register="01c3")
    driver.apply(None, LineSettings(9600, 7, "E"))
    assert asked(driver.set_break(True)) == ["409a0518009a0000"]
    assert asked(driver.set_break(False)) == ["409a051801da0000"]


def test_chips_without_break() -> None:
    driver = chip(break_register="")
    driver.apply(None, LineSettings())
    with pytest.raises(LocalProtocolError, match="cannot send a break"):
        driver.set_break(True)


def test_lines_by_notification_and_at_the_start() -> None:
    driver = chip()
    requests = driver.poll()
    assert asked(requests) == ["c095060700000200"]
    answer(driver, requests, "feee")
    assert driver.lines == ModemLines(cts=True)
    driver.notified(bytes.fromhex("087d90ee"))
    assert driver.lines == ModemLines(True, True, True, True)
    driver.notified(bytes.fromhex("087d9fee"))
    assert driver.lines == ModemLines()


def test_errors_by_notification() -> None:
    driver = chip()
    for kind in ("02", "04", "44", "46"):
        driver.notified(bytes.fromhex(kind + "7d9fee"))
    assert driver.errors == LineErrors(overrun=2, parity=1, framing=2)
    driver.notified(b"\x08\x7d")
    driver.notified(b"")
    assert driver.errors == LineErrors(overrun=2, parity=1, framing=2)
