"""Parsers and tables that no room's own tests measure: the work for twice as much is twice the work, not four times.

Where what is read has a limit, that is the larger of the two sizes.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.builders.capture_files import option
from tests.growth import assert_grows_linearly
from usbip_capture.collector.listen_addresses import parse_listen_addresses
from usbip_capture.describe.naming import class_names
from usbip_capture.errors import UsbipError
from usbip_capture.filters.language import Facts, parse
from usbip_capture.net.address import parse_address
from usbip_capture.net.networks import parse_networks
from usbip_capture.options.table import OPTIONS
from usbip_capture.recordings.reading import open_capture
from usbip_capture.records.pcapng import Section, pack_comments, pack_packet
from usbip_capture.serial_port.inbox import Inbox
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.servers.address import Selector
from usbip_capture.system.shown import lines, one_line, shell_word
from usbip_capture.usb.bos import parse_bos
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed
from usbip_capture.usb.report_items import report_items
from usbip_capture.usb.strings import parse_langids, parse_string

SECTION = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)

INFO = DeviceInfo(
    "1-1", 1, 2, Speed.HIGH, 1, 2, bNumInterfaces=255, interfaces=tuple(InterfaceInfo(i, 0, 0) for i in range(255))
)


def refused(parser: Callable[[str], object], text: str) -> None:
    """Parsed or not; the error is not what is measured."""
    with suppress(UsbipError, ValueError):
        parser(text)


def bos(n: int) -> bytes:
    body = b"\x03\x10\x01" * (min(n, 65000) // 3)
    return b"\x05\x0f" + struct.pack("<H", 5 + len(body)) + b"\xff" + body


def options(n: int) -> None:
    for each in OPTIONS:
        refused(each.parse, "1" * n)
        refused(each.parse, "1-1," * (n // 4))


def interfaces_written(n: int) -> None:
    section = Section(application="a", hardware="h", os="o")
    section.header()
    for number in range(n):
        section.interface(name="usbip0", description="d", snaplen=64)
        section.statistics(number, start_ns=0, end_ns=1, received=1, dropped=0)


TEXTS: dict[str, Callable[[int], object]] = {
    "filter, alternatives": lambda n: parse(" or ".join(f"ep == {i % 250}" for i in range(n // 9))),
    "filter, values": lambda n: parse(f"ep in ({','.join('7' for _ in range(n // 2))})"),
    "filter, nots": lambda n: refused(parse, "not " * (n // 4) + "bulk"),
    "filter, parentheses": lambda n: refused(parse, "(" * n),
    "filter, one word": lambda n: refused(parse, "a" * n),
    "port's URL, query": lambda n: refused(PortUrl.parse, "usbip://h/1-1?" + "a=b&" * (n // 4)),
    "port's URL, host": lambda n: refused(PortUrl.parse, "usbip://" + "[" * n),
    "port's URL, path": lambda n: refused(PortUrl.parse, "usbip://h" + "/" * n),
    "device, number": lambda n: refused(Selector.parse, "1" * n + ":1"),
    "device, colons": lambda n: refused(Selector.parse, ":" * n),
    "address": lambda n: refused(parse_address, "1:" * (n // 2)),
    "address, bracket": lambda n: refused(parse_address, "[" * n + "]:1"),
    "places": lambda n: refused(parse_listen_addresses, "tcp:*:1514," * (n // 11)),
    "networks": lambda n: refused(parse_networks, "10.0.0.0/8," * (n // 11)),
    "options": options,
    "shown": lambda n: (one_line("\x1b\u202e" * n), lines("\x07\n" * n), shell_word("'" * n)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str) -> None:
    parser = TEXTS[name]
    assert_grows_linearly(lambda n: lambda: parser(n), 20_000)


BYTES: dict[str, Callable[[int], object]] = {
    "BOS": lambda n: parse_bos(bos(n)),
    "report descriptor, items": lambda n: list(report_items(b"\x05\x01" * (n // 2))),
    "report descriptor, long items": lambda n: list(report_items(b"\xfe\x00\x01" * (n // 3))),
    "strings": lambda n: [(parse_string(b"\xff\x03" + b"\xd8" * 253), parse_langids(b"\xff\x03" * 128))] * (n // 256),
    "comments": lambda n: pack_comments(["c" * 40] * (n // 40)),
    "packets": lambda n: [pack_packet(0, i, b"x" * 64) for i in range(n // 64)],
    "interfaces": lambda n: interfaces_written(n // 64),
    "class names": lambda n: [class_names(INFO)] * (n // 64),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes(name: str) -> None:
    work = BYTES[name]
    assert_grows_linearly(lambda n: lambda: work(n), 32_000)


def test_a_filter_of_many_terms_is_tested_in_their_number() -> None:
    def prepare(n: int) -> Callable[[], object]:
        found = parse(" or ".join(f"ep == {i % 250}" for i in range(n)))
        assert found is not None
        return lambda: [found.test(Facts(ep=251)) for _ in range(20)]

    assert_grows_linearly(prepare, 1000)


@pytest.mark.parametrize("until", [b"\n", b"aab"])
def test_an_inbox_that_fills_byte_by_byte(until: bytes) -> None:
    def prepare(n: int) -> Callable[[], object]:
        inbox = Inbox(lambda: None)

        def run() -> None:
            for _ in range(n):
                inbox.put(b"a")
            inbox.read_until(until, n, 0)
            inbox.close()

        return run

    assert_grows_linearly(prepare, 4000)


def block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def interface(extra: bytes = b"") -> bytes:
    return block(1, struct.pack("<HHI", 220, 0, 0) + extra)


def statistics(extra: bytes) -> bytes:
    return block(5, struct.pack("<III", 0, 1, 0) + extra)


def packet(extra: bytes = b"") -> bytes:
    return block(6, struct.pack("<IIIII", 0, 1, 0, 64, 64) + bytes(64) + extra)


FILES: dict[str, Callable[[int], bytes]] = {
    "packets": lambda n: SECTION + interface() + packet() * n,
    "comments": lambda n: SECTION + interface() + packet(option("<", 1, b"c") * n),
    "interfaces": lambda n: SECTION + interface(option("<", 2, b"n")) * min(n, 4096),
    "sections": lambda n: (SECTION + interface() + packet()) * (n // 2),
    "options": lambda n: SECTION + interface(option("<", 9999, b"o") * (n * 4)),
    "statistics": lambda n: SECTION + interface() + statistics(option("<", 1, b"c") * 4) * n,
    "unknown blocks": lambda n: SECTION + interface() + block(0xBAD, b"") * n,
    "gzip members": lambda n: gzip.compress(SECTION + interface()) + gzip.compress(b"") * n,
    "classic": lambda n: struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 0, 220) + bytes(16) * n,
}


@pytest.mark.parametrize("name", FILES)
def test_captures_that_are_read(name: str, tmp_path: Path) -> None:
    def prepare(n: int) -> Callable[[], object]:
        path = tmp_path / f"{n}.pcapng"
        path.write_bytes(FILES[name](n))

        def run() -> None:
            with open_capture(path) as capture:
                for _ in capture.packets:
                    pass

        return run

    assert_grows_linearly(prepare, 2000)
