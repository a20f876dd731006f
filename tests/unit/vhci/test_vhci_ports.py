"""The `status` files of every kernel are read alike."""

from __future__ import annotations

import pytest

from tests.builders.vhci_tree import HEADER, OLD_HEADER, OLDEST_HEADER, row
from usbip_capture.errors import NoVhci
from usbip_capture.usb.info import Speed
from usbip_capture.vhci.ports import Port, PortStatus, hub_of, parse_status


def test_the_present_form() -> None:
    text = HEADER + row(0, "hs", 6, 3, 0x1000A, "3-1") + row(1, "hs") + row(8, "ss", 5) + row(9, "ss", 7, 5, 2, "4-2")
    assert parse_status(text) == [
        Port(0, "hs", PortStatus.USED, Speed.HIGH, 0x1000A, "3-1"),
        Port(1, "hs", PortStatus.FREE),
        Port(8, "ss", PortStatus.NOT_ASSIGNED),
        Port(9, "ss", PortStatus.ERROR, Speed.SUPER, 2, "4-2"),
    ]


@pytest.mark.parametrize(
    ("header", "free"),
    [
        (OLD_HEADER, "0001 004 000 00000000 0000000000000000 0-0\n"),
        (OLDEST_HEADER, "001 004 000 000 000 0000000000000000 0-0\n"),
    ],
)
def test_the_old_forms(header: str, free: str) -> None:
    used = f"{header}{'000 006 003 00010002 ffff880012345678 1-1'}\n{free}"
    assert parse_status(used) == [
        Port(0, "hs", PortStatus.USED, Speed.HIGH, 0x10002, "1-1"),
        Port(1, "hs", PortStatus.FREE),
    ]


@pytest.mark.parametrize("line", ["hs", "hs 0001", "x y", "hs 0000 006 003", "hs 0000 006 099 00000000 000000 0-0"])
def test_what_is_not_a_port_is_named(line: str) -> None:
    with pytest.raises(NoVhci, match="is not a port"):
        parse_status(f"{HEADER}{line}\n")


def test_the_hub_for_each_speed() -> None:
    hubs = {speed: hub_of(speed) for speed in Speed}
    assert {speed for speed, hub in hubs.items() if hub == "ss"} == {Speed.SUPER, Speed.SUPER_PLUS}
