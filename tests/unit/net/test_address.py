"""Addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import format_address, parse_address, parse_place, split_place


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


@pytest.mark.parametrize(
    ("text", "meant", "parts", "shown"),
    [
        ("pi:3241", ("pi", 3241), ("", "", "pi", 0), "pi:3241"),
        (" tls://pi ", ("tls://pi", 3241), ("tls", "", "pi", 0), "tls://pi"),
        ("TLS://pi:3240/", ("tls://pi", 3240), ("tls", "", "pi", 0), "tls://pi:3240"),
        ("tls://[fe80::1%eth0]", ("tls://[fe80::1%eth0]", 3241), ("tls", "", "fe80::1%eth0", 0), "tls://[fe80::1%eth0]"),
        ("tls://fe80::1", ("tls://[fe80::1]", 3241), ("tls", "", "fe80::1", 0), "tls://[fe80::1]"),
        ("ssh://pi", ("ssh://pi", 3240), ("ssh", "", "pi", 0), "ssh://pi"),
        ("ssh://me@pi:2222", ("ssh://me@pi:2222", 3240), ("ssh", "me", "pi", 2222), "ssh://me@pi:2222"),
        ("ssh://me@example@pi/3242", ("ssh://me@example@pi", 3242), ("ssh", "me@example", "pi", 0),
         "ssh://me@example@pi/3242"),
        ("ssh://[::1]:22/", ("ssh://[::1]:22", 3240), ("ssh", "", "::1", 22), "ssh://[::1]:22"),
    ],
)  # fmt: skip
def test_what_has_a_scheme(text: str, meant: tuple[str, int], parts: tuple[str, str, str, int], shown: str) -> None:
    assert parse_place(text) == meant
    assert split_place(meant[0]) == parts
    assert format_address(*meant) == shown
    assert parse_place(shown) == meant


@pytest.mark.parametrize(
    "text",
    ["ssh://", "ssh://@", "ssh://@pi:99999", "ssh://-oProxyCommand=x", "ssh://-l@pi", "ssh://me @pi", "ssh://p\ti", "ssh://p\0i",
     "ssh://pi/x", "ssh://pi/0", "ssh://pi/3240/", "ssh://a;b", "ssh://$(x)", "ssh://me:secret@pi", "ssh://-", "ssh://p\ni",
     "tls://", "tls://me@pi", "tls://pi/3241", "tls://pi:x", "tls://a b", "http://pi", "ssh:/pi", "tls://tls://pi"],
)  # fmt: skip
def test_what_has_a_scheme_and_is_not_an_address(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not an address"):
        parse_place(text)


def test_the_port_of_who_gives_none() -> None:
    assert parse_place("tls://pi", 5000) == ("tls://pi", 5000)
    assert parse_place("ssh://pi", 5000) == ("ssh://pi", 5000)
    assert parse_place("ssh://pi/3242", -1) == ("ssh://pi", 3242)
    assert parse_place("tls://pi", -1) == ("tls://pi", -1)


@given(st.sampled_from(["", "tls://", "ssh://"]), st.text(st.sampled_from("aZ0-._:%[]@/ \t\0~\u00e4"), max_size=12))
def test_what_is_parsed_is_printed_so_that_it_means_the_same(scheme: str, text: str) -> None:
    try:
        place = parse_place(scheme + text)
    except LocalProtocolError:
        return
    if not scheme or not place[1]:
        return
    assert parse_place(format_address(*place)) == place
    found, user, name, _ = split_place(place[0])
    assert f"{found}://" == scheme
    for argument in (user, name):
        assert not argument.startswith("-")
        assert argument.isprintable()
        assert " " not in argument
