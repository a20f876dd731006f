"""CDC-ACM: requests as CDC PSTN 1.2 has them, notifications whole and in pieces."""

from __future__ import annotations

import pytest

from tests.unit.uart.chips import ACM, asked, device, only_port
from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.driver import Driver
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines


def port(descriptors: str = ACM) -> Driver:
    return only_port(device(0x303A, 0x1001, kind=0xEF), descriptors).driver()


def test_line_coding_is_sent_once_and_only_when_it_changes() -> None:
    driver = port()
    first = LineSettings(115200)
    assert asked(driver.apply(None, first)) == ["2120000000000700 00c20100000008"]
    assert driver.apply(first, first) == []
    assert driver.apply(first, LineSettings(115200, rtscts=True, xonxoff=True, low_latency=True)) == []
    other = LineSettings(1_500_001, 7, "E", 2)
    assert asked(driver.apply(first, other)) == ["2120000000000700 61e31600020207"]


@pytest.mark.parametrize(
    ("parity", "stopbits", "coding"),
    [("N", 1, "0000"), ("O", 1.5, "0101"), ("E", 2, "0202"), ("M", 1, "0003"), ("S", 1, "0004")],
)
def test_frames(parity: str, stopbits: float, coding: str) -> None:
    data = port().apply(None, LineSettings(300, 8, parity, stopbits))[0].data
    assert data.hex() == "2c010000" + coding + "08"


def test_both_lines_in_one_request() -> None:
    driver = port()
    assert asked(driver.set_lines(True, False)) == ["2122010000000000"]
    assert asked(driver.set_lines(True, True)) == ["2122030000000000"]
    assert asked(driver.set_lines(False, False)) == ["2122000000000000"]


def test_break_lasts_until_it_is_ended() -> None:
    driver = port()
    assert asked(driver.set_break(True)) == ["2123ffff00000000"]
    assert asked(driver.set_break(False)) == ["2123000000000000"]


def test_what_the_device_does_not_announce_may_stall() -> None:
    plain = port(ACM.replace("04 24 02 06", "04 24 02 00"))
    announced = port()
    for driver, optional in ((plain, True), (announced, False)):
        requests = [*driver.apply(None, LineSettings()), *driver.set_lines(True, True), *driver.set_break(True)]
        assert [r.optional for r in requests] == [optional] * 3


def test_serial_state() -> None:
    driver = port()
    assert driver.lines == ModemLines(cts=True)
    driver.notified(bytes.fromhex("a120000000000200 0b00"))
    assert driver.lines == ModemLines(True, True, True, True)
    driver.notified(bytes.fromhex("a120000000000200 7400"))
    assert driver.lines == ModemLines(cts=True)
    assert driver.errors == LineErrors(overrun=1, parity=1, framing=1, breaks=1)


def test_a_notification_in_pieces_and_two_at_once() -> None:
    driver = port()
    driver.notified(bytes.fromhex("a120000000000200"))
    assert driver.lines == ModemLines(cts=True)
    driver.notified(bytes.fromhex("0100 a120000000000200 0200"))
    assert driver.lines == ModemLines(True, True)


@pytest.mark.parametrize("junk", ["", "00", "a12000000000ffff 00", "2120000000000200 0300", "a100000000000200 0300"])
def test_junk_notifications_change_nothing(junk: str) -> None:
    driver = port()
    driver.notified(bytes.fromhex(junk))
    assert driver.lines == ModemLines(cts=True)
    assert driver.errors == LineErrors()


def test_settings_that_no_uart_has() -> None:
    for wrong in ({"baudrate": 0}, {"bytesize": 9}, {"parity": "X"}, {"stopbits": 3}):
        with pytest.raises(LocalProtocolError):
            LineSettings(**wrong)
