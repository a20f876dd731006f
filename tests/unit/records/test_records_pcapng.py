"""`records.pcapng`: blocks as python-pcapng and the specification read them."""

from __future__ import annotations

import warnings
from io import BytesIO
from struct import unpack_from

import pytest
from pcapng.blocks import InterfaceDescription, InterfaceStatistics, SectionHeader

from tests.oracles.pcapng_reader import Scanner
from usbip_capture.records.pcapng import (
    MAX_COMMENTS,
    MAX_TEXT,
    Section,
    bounded_text,
    captured_limit,
    pack_comments,
    swap_words,
)

START, END = 0x1112131415161718, 0x2122232425262728


def section() -> Section:
    return Section(application="usbip-capture 1.2", hardware="riscv64", os="Linux 6.1")


def test_section_header() -> None:
    raw = section().header()
    assert unpack_from("<IIIHHq", raw) == (0x0A0D0D0A, len(raw), 0x1A2B3C4D, 1, 0, -1)
    (block,) = Scanner(BytesIO(raw))
    assert isinstance(block, SectionHeader)
    assert dict(block.options) == {
        "shb_hardware": "riscv64",
        "shb_os": "Linux 6.1",
        "shb_userappl": "usbip-capture 1.2",
    }


def test_interfaces() -> None:
    made = section()
    raw = made.header()
    first, block = made.interface(name="usbip0", description="USB/IP pi 1-1", snaplen=1024, speed=480_000_000)
    raw += block
    second, block = made.interface(name="usbip1", description="", snaplen=262_144, speed=0)
    raw += block
    assert (first, second) == (0, 1)
    _, one, two = Scanner(BytesIO(raw))
    assert isinstance(one, InterfaceDescription)
    assert isinstance(two, InterfaceDescription)
    assert (one.link_type, one.snaplen, two.snaplen) == (220, 1024, 262_144)
    assert dict(one.options) == {
        "if_name": "usbip0",
        "if_tsresol": b"\x09",
        "if_description": "USB/IP pi 1-1",
        "if_speed": 480_000_000,
    }
    assert dict(two.options) == {"if_name": "usbip1", "if_tsresol": b"\x09"}


def test_statistics_have_their_times_high_word_first() -> None:
    made = section()
    raw = made.header() + made.interface(name="usbip0", description="", snaplen=64, speed=0)[1]
    block = made.statistics(0, start_ns=START, end_ns=END, received=10, dropped=3, comments=["one", "two"])
    assert unpack_from("<IIIII", block) == (5, len(block), 0, 0x21222324, 0x25262728)
    assert unpack_from("<HHII", block, 20) == (2, 8, 0x11121314, 0x15161718)
    assert unpack_from("<HHII", block, 32) == (3, 8, 0x21222324, 0x25262728)
    *_, read = Scanner(BytesIO(raw + block))
    assert isinstance(read, InterfaceStatistics)
    assert (read.options["isb_ifrecv"], read.options["isb_ifdrop"]) == (10, 3)
    assert read.options.get_all("opt_comment") == ["one", "two"]
    assert swap_words(read.options["isb_starttime"]) == START


def test_nothing_warns_even_where_warnings_are_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = section()
        raw = made.header() + made.interface(name="usbip0", description="", snaplen=0, speed=1)[1]
        assert len(list(Scanner(BytesIO(raw)))) == 2


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        ((), ""),
        (("abc",), "0100 0300 616263 00 0000 0000"),
        (("abcd", "e"), "0100 0400 61626364 0100 0100 65 000000 0000 0000"),
        (("\0é\udcff",), "0100 0300 c3a93f 00 0000 0000"),
    ],
)
def test_comments(comments: tuple[str, ...], expected: str) -> None:
    assert pack_comments(comments) == bytes.fromhex(expected)


def test_comments_are_bounded() -> None:
    raw = pack_comments(["x" * 70_000] * 100)
    assert len(raw) == MAX_COMMENTS * (4 + MAX_TEXT) + 4
    assert bounded_text("é" * MAX_TEXT) == "é" * (MAX_TEXT // 2)
    assert bounded_text("x" + "é" * MAX_TEXT) == "x" + "é" * (MAX_TEXT // 2 - 1)


@pytest.mark.parametrize(
    ("snaplen", "options", "limit"), [(64, 0, 64), (262_144, 0, 262_112), (262_144, 12, 262_100), (1 << 31, 0, 262_112)]
)
def test_captured_limit(snaplen: int, options: int, limit: int) -> None:
    assert captured_limit(snaplen, options) == limit
