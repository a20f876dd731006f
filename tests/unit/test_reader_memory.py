"""What readers keep of what strangers send: at its peak a small multiple of the input, and of their own limits."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.growth import assert_grows_linearly
from usbip_capture.errors import UsbipError
from usbip_capture.servers import configuration, known
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.simulated.lsusb import parse_lsusb
from usbip_capture.syslog.framing import Framer
from usbip_capture.syslog.message import MessageParser
from usbip_capture.system.folders import cache_folder
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.wire import structs
from usbip_capture.wire.operations import DevlistExchange

MIB = 1 << 20


def peak(run: Callable[[], object]) -> int:
    """Bytes at its peak."""
    tracemalloc.start()
    try:
        kept = run()
        return tracemalloc.get_traced_memory()[1] + 0 * bool(kept)
    finally:
        tracemalloc.stop()


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def prepared(prepare: Callable[[int], Callable[[], object]], size: int) -> Callable[[], object]:
    """Prepared within the test: its folders are its own."""

    def run() -> object:
        return prepare(size)()

    return run


def cache(lines: int) -> Callable[[], object]:
    """The memory of servers and devices, as somebody else may have written it."""
    rows = [
        f"server\tpi{n}\t3240\tused\tname {n}\t{n}\ndevice\tpi{n}\t3240\t1-1 1209:0001\tThing\t1" for n in range(lines)
    ]
    write(os.path.join(cache_folder(), known.CACHE_FILE), "\n".join(rows))
    return known.read_cache


def toml(servers: int) -> Callable[[], object]:
    """A configuration with many servers, the last of them wrong."""
    write(configuration_path(), "[servers]\n" + "".join(f'name{n} = "pi{n}"\n' for n in range(servers)) + "x = 7\n")
    return configuration.configured


def device_list(devices: int, interfaces: int) -> Callable[[], object]:
    """What a server claims to export."""
    head = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_DEVLIST, 0) + structs.DEVLIST_COUNT.pack(devices)
    device = bytearray(structs.DEVICE.size)
    device[-1] = interfaces
    raw = head + (bytes(device) + bytes(structs.INTERFACE.size * interfaces)) * devices

    def run() -> object:
        exchange, at = DevlistExchange(), 0
        with suppress(UsbipError):
            while exchange.wanted:
                taken = raw[at : at + exchange.wanted]
                at += len(taken)
                exchange.receive(taken)
        return exchange

    return run


def log(message: bytes) -> Callable[[], object]:
    """A log of 2 MiB."""

    def run() -> object:
        framer, parser = Framer(65536), MessageParser("host", "host")
        for _ in range(2 * MIB // len(message)):
            for frame, flaw in framer.feed(message):
                parser.parse(frame, 1, flaw)
        return framer

    return run


CONFIGURATION = b"\x09\x02\xff\xff\x01\x01\x00\x80\x32" + (b"\x07\x05\x81\x02\x00\x02\x00" * 9400)[:65526]


@pytest.mark.parametrize(
    ("run", "most"),
    [
        (prepared(cache, 20_000), 8),
        (prepared(toml, 50_000), 16),
        (device_list(4096, 8), 16),
        (device_list(4096, 255), 16),
        (device_list(1, 255), 1),
        (log(b"x" * 65536), 2),
        (log(b"<11>1 - h a - - - x\n" * 1000), 2),
        (log(b"999999 " + b"y" * 65529), 2),
        (lambda: parse_configuration(CONFIGURATION), 8),
        (lambda: suppressed("Bus 001 Device 002: ID 1209:0001\n" + "  bLength 9\n" * 80_000), 16),
    ],
    ids=["cache", "toml", "devices", "interfaces", "device", "endless", "lines", "counts", "configuration", "lsusb"],
)
def test_memory(run: Callable[[], object], most: int) -> None:
    assert peak(run) < most * MIB


def suppressed(text: str) -> None:
    with suppress(UsbipError):
        parse_lsusb(text)


def test_the_limits_are_what_is_read() -> None:
    """That the bounds above come from them."""
    assert len(known.read_cache().servers) == 0
    assert 0 < len(getattr(cache(20_000)(), "servers", ())) < 20_000


@pytest.mark.parametrize(("prepare", "size"), [(cache, 1500), (toml, 4000)], ids=["cache", "toml"])
def test_work_grows_as_what_is_read(prepare: Callable[[int], Callable[[], object]], size: int) -> None:
    assert_grows_linearly(prepare, size)
