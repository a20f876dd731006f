"""CP210x: requests as Silicon Labs' AN571 has them, speeds as AN205 lists them."""

from __future__ import annotations

import pytest

from tests.unit.uart.chips import answer, asked, configuration, device, only_port, vendor_port
from usbip_capture.errors import LocalProtocolError
from usbip_capture.uart.cp210x import Cp210x
from usbip_capture.uart.ports import find_ports
from usbip_capture.uart.settings import LineErrors, LineSettings, ModemLines
from usbip_capture.usb.info import Speed

CP2101, CP2102, CP2103, CP2104, CP2105, CP2108, CP2102N = "01", "02", "03", "04", "05", "08", "20"
NO_FLOW = "00000000 00000000 80000000 80000000"


def chip(part: str = CP2104, flow: str = NO_FLOW, firmware: str = "010008") -> Cp210x:
    """An opened port."""
    driver = only_port(device(0x10C4, 0xEA60), vendor_port(0)).driver()
    assert isinstance(driver, Cp210x)
    answer(driver, driver.identify(), part)
    answer(driver, driver.open(), *([flow, firmware] if part == CP2102N else [flow]))
    return driver


def speed(part: str, baudrate: int) -> int:
    (request,) = chip(part).apply(LineSettings(1), LineSettings(baudrate))
    return int.from_bytes(request.data, "little")


def test_opening() -> None:
    driver = only_port(device(0x10C4, 0xEA60), vendor_port(0)).driver()
    assert asked(driver.identify()) == ["c0ff0b3700000100"]
    assert asked(driver.open()) == ["4100010000000000", "c114000000001000"]
    assert asked(driver.apply(None, LineSettings(115200))) == [
        "411e000000000400 00c20100",
        "4103000800000000",
        "4113000000001000 00000000000000008000000080000000",
    ]
    assert asked(driver.set_lines(True, True)) == ["4107030300000000"]
    assert asked(driver.close()) == ["41120f0000000000", "4100000000000000"]


def test_only_what_changes_is_sent() -> None:
    driver, old = chip(), LineSettings(115200)
    assert driver.apply(old, old) == []
    assert driver.apply(old, LineSettings(115200, low_latency=True)) == []
    assert asked(driver.apply(old, LineSettings(9600))) == ["411e000000000400 80250000"]
    assert asked(driver.apply(old, LineSettings(115200, 5, "S", 1.5))) == ["4103410500000000"]
    assert asked(driver.apply(old, LineSettings(115200, 7, "E", 2))) == ["4103220700000000"]


@pytest.mark.parametrize(
    ("part", "asked_for", "sent"),
    [
        (CP2102, 115200, 115200),
        (CP2102, 74880, 76800),  # its table has nothing nearer
        (CP2102, 921600, 921600),
        (CP2102, 1_000_000, 1_000_000),
        (CP2104, 74880, 74880),
        (CP2104, 31250, 31250),
        (CP2104, 2_000_000, 2_000_000),
        (CP2102N, 3_000_000, 3_000_000),
        (CP2102N, 1_500_001, 1_500_001),
        (CP2108, 250_001, 250_001),
        ("ff", 2_000_000, 2_000_000),
    ],
)
def test_speeds(part: str, asked_for: int, sent: int) -> None:
    assert speed(part, asked_for) == sent


@pytest.mark.parametrize(
    ("part", "baudrate"),
    [(CP2101, 1_000_000), (CP2102, 31250), (CP2102, 1_500_000), (CP2104, 3_000_000), (CP2102N, 4_000_000),
     (CP2104, 110)],
)  # fmt: skip
def test_speeds_that_a_chip_cannot_reach(part: str, baudrate: int) -> None:
    driver = chip(part)
    with pytest.raises(LocalProtocolError, match=f"the {driver.chip} has .* instead of {baudrate}"):
        driver.apply(None, LineSettings(baudrate))


def test_the_second_port_of_a_cp2105_is_plainer() -> None:
    first, second = find_ports(device(0x10C4, 0xEA70), configuration(vendor_port(0), vendor_port(1)), Speed.FULL)
    drivers = [first.driver(), second.driver()]
    for driver in drivers:
        answer(driver, driver.identify(), CP2105)
        answer(driver, driver.open(), NO_FLOW)
    assert asked(drivers[0].apply(LineSettings(), LineSettings(2_000_000))) == ["411e000000000400 80841e00"]
    assert asked(drivers[1].apply(LineSettings(), LineSettings(460800))) == ["411e000001000400 00080700"]
    with pytest.raises(LocalProtocolError, match="CP2105 has 921600"):
        drivers[1].apply(None, LineSettings(2_000_000))
    with pytest.raises(LocalProtocolError, match="CP2105 has 2400"):
        drivers[1].apply(None, LineSettings(1200))


def test_four_ports_of_a_cp2108() -> None:
    ports = find_ports(device(0x10C4, 0xEA71), configuration(*(vendor_port(n) for n in range(4))), Speed.FULL)
    assert [asked(p.driver().set_lines(True, False)) for p in ports] == [[f"41070103{n:02x}000000"] for n in range(4)]


def test_rts_cts_keeps_what_the_chip_was_set_up_with() -> None:
    driver = chip(flow="20000000 04000000 11000000 22000000")
    driver.set_lines(True, True)
    flow = driver.apply(LineSettings(), LineSettings(rtscts=True))
    # CTS handshake, DTR active; error characters stay, RTS handshake; limits stay
    assert asked(flow) == ["4113000000001000 09000000840000001100000022000000"]
    assert driver.in_chip == {"rtscts"}
    # DTR and RTS are part of that register now.
    assert asked(driver.set_lines(False, False)) == ["4113000000001000 08000000040000001100000022000000"]


def test_dsr_dtr_and_xon_xoff() -> None:
    driver = chip()
    driver.set_lines(True, True)
    assert asked(driver.apply(LineSettings(), LineSettings(dsrdtr=True))) == [
        "4113000000001000 12000000400000008000000080000000"
    ]
    assert asked(driver.apply(LineSettings(), LineSettings(xonxoff=True))) == [
        "4119000000000600 000000001113",
        "4113000000001000 01000000430000008000000080000000",
    ]
    assert driver.in_chip == {"xonxoff"}
    assert asked(driver.set_lines(False, True)) == ["4107020300000000"]


def test_flow_control_is_refused_where_the_chip_is_broken() -> None:
    driver = chip(CP2102N, firmware="010004")
    assert len(driver.apply(None, LineSettings())) == 2
    with pytest.raises(LocalProtocolError, match="E104"):
        driver.apply(LineSettings(), LineSettings(rtscts=True))
    assert driver.apply(LineSettings(), LineSettings(xonxoff=True)) == []
    assert "xonxoff" not in driver.in_chip  # done by the port's owner instead
    repaired = chip(CP2102N, firmware="010005")
    assert repaired.apply(LineSettings(), LineSettings(rtscts=True))


def test_the_firmware_is_asked_for_where_it_matters() -> None:
    driver = only_port(device(0x10C4, 0xEA60), vendor_port(0)).driver()
    answer(driver, driver.identify(), CP2102N)
    assert asked(driver.open())[-1] == "c0ff100000000300"


def test_chips_that_do_not_identify_themselves() -> None:
    driver = chip("")
    assert driver.chip == "CP210x"
    assert driver.apply(None, LineSettings(1_500_000))


def test_the_first_chip_has_one_frame_length() -> None:
    driver = chip(CP2101)
    driver.apply(None, LineSettings(9600, 8, "E"))
    for wrong in (LineSettings(9600, 7), LineSettings(9600, 8, "M"), LineSettings(9600, 8, "N", 2)):
        with pytest.raises(LocalProtocolError, match="CP2101 has 8 data bits"):
            driver.apply(None, wrong)


def test_lines_and_errors_are_asked_for() -> None:
    driver = chip()
    assert driver.polls
    requests = driver.poll()
    assert asked(requests) == ["c108000000000100", "c110000000001300"]
    answer(driver, requests, "b3", "1f000000" + "00" * 15)
    assert driver.lines == ModemLines(cts=True, dsr=True, cd=True)
    assert driver.errors == LineErrors(1, 1, 1, 1)
    answer(driver, requests, "40", "08000000" + "00" * 15)
    assert driver.lines == ModemLines(ri=True)
    assert driver.errors == LineErrors(2, 1, 1, 1)
    answer(driver, requests, "", "")
    assert driver.lines == ModemLines(ri=True)


def test_break_and_purge() -> None:
    driver = chip()
    assert asked(driver.set_break(True)) == ["4105010000000000"]
    assert asked(driver.set_break(False)) == ["4105000000000000"]
    assert asked(driver.purge(True, False)) == ["41120a0000000000"]
    assert asked(driver.purge(False, True)) == ["4112050000000000"]
    assert driver.purge(False, False) == []
