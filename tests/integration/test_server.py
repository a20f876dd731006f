"""`server` and `demo` over real sockets: one client each, hostile clients, and Debian's own usbip program."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.fakes.scripted_server import read_exactly
from tests.waiting import wait_until
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import DemoServer
from usbip_capture.errors import CannotListen, ImportRefused
from usbip_capture.servers.address import Selector
from usbip_capture.servers.address import ServerAddress as Host
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb
from usbip_capture.wire import structs
from usbip_capture.wire.structs import OpStatus


@pytest.fixture
def server() -> Iterator[Host]:
    """A demo server on a port of its own."""
    serving = DemoServer()
    _, port = serving.listen("127.0.0.1", 0)
    yield Host("127.0.0.1", port, 5.0)
    serving.close()


def works(server: Host) -> bool:
    """Whether a good client is served as ever."""
    device = server.import_device(Selector("1-1"))
    completion = device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), 5)
    device.close()
    return bytes(completion.data) == demo.DESCRIPTORS.device


def is_listed(server: Host) -> bool:
    return [info.busid for info in server.devices()] == ["1-1"]


def test_a_device_is_lent_to_one_client_at_a_time(server: Host) -> None:
    assert is_listed(server)
    first = server.import_device(Selector("1-1"))
    assert server.devices() == []  # as Linux: what is in use is not listed
    with pytest.raises(ImportRefused) as caught:
        server.import_device(Selector("1-1"))
    assert caught.value.status == OpStatus.DEV_BUSY
    first.close()
    wait_until("the device is free again", lambda: is_listed(server))
    assert works(server)


def test_unknown_device(server: Host) -> None:
    with pytest.raises(ImportRefused) as caught:
        server.import_device(Selector("7-7"))
    assert caught.value.status == OpStatus.NODEV


def test_each_import_begins_unconfigured(server: Host) -> None:
    for _ in range(2):
        device = server.import_device(Selector("1-1"))
        get_configuration = Urb.control(bytes.fromhex("8008000000000100"))
        assert bytes(device.run(get_configuration, 5).data) == b"\0"
        assert device.run(Urb.control(bytes.fromhex("0009010000000000")), 5).status == 0
        assert bytes(device.run(get_configuration, 5).data) == b"\1"
        device.close()
        wait_until("the device is free again", lambda: is_listed(server))


GARBAGE = {
    "random": random.Random(1).randbytes(4096),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "version 2": structs.OP_COMMON.pack(0x200, structs.OP_REQ_DEVLIST, 0),
    "cut": structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + b"1-1",
    "nothing": b"",
}


@pytest.mark.parametrize("words", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_hostile_client_is_cut_off_and_others_go_on(server: Host, words: bytes) -> None:
    with server.connect() as hostile:
        hostile.sendall(words)
        hostile.shutdown(socket.SHUT_WR)
        hostile.settimeout(10)
        try:
            while hostile.recv(4096):
                pass
        except ConnectionResetError:
            pass
    assert works(server)


def test_a_client_that_breaks_the_protocol_loses_its_device(server: Host) -> None:
    with server.connect() as hostile:
        hostile.sendall(structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1"))
        read_exactly(hostile, 320)
        hostile.sendall(bytes(48))
        hostile.settimeout(10)
        assert hostile.recv(1) == b""
    wait_until("the device is free again", lambda: is_listed(server))
    assert works(server)


def send_requests(sock: socket.socket, count: int) -> None:
    """So many reads of the configuration descriptor, a thousand at a time."""
    setup = bytes.fromhex("8006000200009001")
    for first in range(1, count, 1000):
        numbers = range(first, first + 1000)
        requests = [structs.CMD_SUBMIT.pack(1, n, demo.INFO.devid, 1, 0, 0, 400, 0, 0, 0, setup) for n in numbers]
        sock.send(b"".join(requests))


def test_a_client_that_reads_nothing_delays_nobody(server: Host) -> None:
    with server.connect() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1"))
        read_exactly(lazy, 320)
        lazy.setblocking(False)
        with pytest.raises(BlockingIOError):  # it stops reading from us, as it must
            send_requests(lazy, 2_000_000)
        assert server.devices() == []
    wait_until("the device is free again", lambda: is_listed(server))


def test_rounds_leave_no_thread_behind(server: Host) -> None:
    assert works(server)
    wait_until("the device is free again", lambda: is_listed(server))
    before = threading.active_count()
    for _ in range(300):
        device = server.import_device(Selector("1-1"))
        device.close()
        wait_until("the device is free again", lambda: is_listed(server))
    wait_until("all threads are gone", lambda: threading.active_count() <= before)


def test_a_busy_port_gives_a_sentence(server: Host) -> None:
    with pytest.raises(CannotListen, match=f"port {server.port}.*choose another"):
        DemoServer().listen("127.0.0.1", server.port)


def test_ipv6() -> None:
    serving = DemoServer()
    try:
        _, port = serving.listen("::1", 0)
    except CannotListen as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert works(Host("::1", port, 5.0))
    serving.close()


def test_debians_usbip_lists_the_demo(server: Host) -> None:
    usbip = shutil.which("usbip") or shutil.which("usbip", path="/usr/sbin")
    if usbip is None:
        pytest.skip("usbip is not installed")
    command = [usbip, "--tcp-port", str(server.port), "list", "-r", "127.0.0.1"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    assert "1-1:" in shown
    assert "(1209:0001)" in shown
    assert "Communications / Abstract (modem)" in shown
    assert "Human Interface Device / Boot Interface Subclass / Keyboard" in shown


def test_a_server_without_descriptors_listens_again_when_there_are_some() -> None:
    pytest.importorskip("resource", reason="this system has no limits for files")
    code = (
        "import resource, sys; from usbip_capture.demo.device import DemoServer; import threading\n"
        "server = DemoServer(); print(server.listen('127.0.0.1', 0)[1], flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        many = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        for sock in many:
            sock.close()
        assert Host("127.0.0.1", port, 20.0).devices()
        assert process.stdin is not None
        process.stdin.close()
