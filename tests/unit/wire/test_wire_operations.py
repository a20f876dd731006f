"""`wire.operations`: listing and importing, from good servers and bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.errors import ImportRefused, LocalProtocolError, RemoteProtocolError
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed
from usbip_capture.wire import structs
from usbip_capture.wire.operations import DevlistExchange, Exchange, ImportExchange

KEYBOARD = DeviceInfo(
    "1-1.2",
    1,
    5,
    Speed.FULL,
    0x0627,
    0x0001,
    0x0203,
    4,
    5,
    6,
    1,
    2,
    2,
    "/sys/devices/usb1/1-1/1-1.2",
    (InterfaceInfo(3, 1, 1), InterfaceInfo(3, 0, 0)),
)
BARE = DeviceInfo("3-1", 3, 9, Speed.SUPER, 0x46F4, 0x0001)


def common(code: int, status: int = 0, version: int = 0x0111) -> bytes:
    return structs.OP_COMMON.pack(version, code, status)


def devlist(*devices: DeviceInfo, count: int | None = None, version: int = 0x0111) -> bytes:
    raw = common(structs.OP_REP_DEVLIST, version=version)
    raw += structs.DEVLIST_COUNT.pack(len(devices) if count is None else count)
    for info in devices:
        raw += structs.pack_device(info)
        for i in info.interfaces:
            raw += structs.INTERFACE.pack(i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol)
    return raw


def feed(request: Exchange, reply: bytes) -> bytes:
    """Give the exchange what it wants, as a socket would; what is left over."""
    while request.wanted:
        piece, reply = reply[: request.wanted], reply[request.wanted :]
        request.receive(piece)
    return reply


def test_device_layout() -> None:
    raw = structs.pack_device(KEYBOARD)
    assert len(raw) == 312
    assert raw[256:264] == b"1-1.2\0\0\0"
    assert raw[288:].hex(" ", 4) == "00000001 00000005 00000002 06270001 02030405 06010202"
    assert structs.unpack_device(raw, KEYBOARD.interfaces) == KEYBOARD


@pytest.mark.parametrize("version", sorted(structs.VERSIONS))
def test_list(version: int) -> None:
    request = DevlistExchange()
    assert request.request == bytes.fromhex("0111800500000000")
    assert feed(request, devlist(KEYBOARD, BARE, version=version) + b"rest") == b"rest"
    assert request.devices == [KEYBOARD, BARE]


def test_empty_list() -> None:
    request = DevlistExchange()
    feed(request, devlist())
    assert request.devices == []


def test_import() -> None:
    request = ImportExchange("1-1.2")
    assert request.request == bytes.fromhex("0111800300000000") + b"1-1.2".ljust(32, b"\0")
    assert feed(request, common(structs.OP_REP_IMPORT) + structs.pack_device(KEYBOARD) + b"urb") == b"urb"
    assert request.info == structs.unpack_device(structs.pack_device(KEYBOARD))


@pytest.mark.parametrize(
    ("status", "words"),
    [(1, "refused"), (2, "in use"), (3, "error state"), (4, "no such device"), (5, "unexpected"), (99, "status 99")],
)
def test_refused_import_names_the_reason(status: int, words: str) -> None:
    with pytest.raises(ImportRefused, match=words) as caught:
        feed(ImportExchange("1-1"), common(structs.OP_REP_IMPORT, status))
    assert caught.value.status == status


BAD = {
    "web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "garbage": bytes(range(200, 240)),
    "short": b"\x01\x11",
    "closed at once": b"",
    "other reply": common(structs.OP_REP_IMPORT) + bytes(400),
    "version 2": common(structs.OP_REP_DEVLIST, version=0x0200),
    "version 1.9.9": common(structs.OP_REP_DEVLIST, version=0x0199),
    "refused": common(structs.OP_REP_DEVLIST, 5),
    "four billion devices": devlist(count=0xFFFFFFFF),
    "fewer than promised": devlist(BARE, count=2),
    "cut in a device": devlist(KEYBOARD)[:100],
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD.keys())
def test_bad_replies(reply: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(DevlistExchange(), reply)


def test_import_of_another_device() -> None:
    with pytest.raises(RemoteProtocolError, match=r"1-1\.2"):
        feed(ImportExchange("1-1"), common(structs.OP_REP_IMPORT) + structs.pack_device(KEYBOARD))


@pytest.mark.parametrize("busid", ["", "x" * 32])
def test_impossible_busid(busid: str) -> None:
    with pytest.raises(LocalProtocolError):
        ImportExchange(busid)


@given(st.binary(max_size=2000))
def test_garbage_raises_only_remote_protocol_error(garbage: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(DevlistExchange(), garbage)
    with pytest.raises(RemoteProtocolError):
        feed(DevlistExchange(), devlist(count=1000) + garbage)
