"""Addresses as people write them."""

from __future__ import annotations

import pytest

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import parse_address


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("pi", ("pi", 3240)),
        ("pi:3241", ("pi", 3241)),
        ("fe80::1%eth0", ("fe80::1%eth0", 3240)),
        ("[::ffff:192.0.2.1]:1", ("::ffff:192.0.2.1", 1)),
    ],
)
def test_what_is_an_address(text: str, meant: tuple[str, int]) -> None:
    assert parse_address(text) == meant


@pytest.mark.parametrize("text", ["x:y:z", "192.0.2.10:3240:1-1", "1:2:3", "[pi:1]:3240", "a\0::1", "b8:27:eb:1:2:3"])
def test_colons_that_are_not_of_ipv6(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not an address"):
        parse_address(text)
