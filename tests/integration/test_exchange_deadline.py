"""`net`: a time-out belongs to the whole exchange, and to whatever kind of time the kernel counts in."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from typing import Any

import pytest

from tests.fakes.scripted_server import ScriptedServer, answer_devlist, answer_import, read_exactly
from usbip_capture.demo.device import DemoServer
from usbip_capture.errors import RemoteProtocolError, ServerUnreachable
from usbip_capture.net import connecting as net
from usbip_capture.net import transport
from usbip_capture.net.transport import SocketTransport
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Urb
from usbip_capture.wire import structs
from usbip_capture.wire.operations import MAX_DEVICES, MAX_INTERFACES, DevlistExchange

GET_CONFIGURATION = bytes.fromhex("8008000000000100")


class Clock:
    """Time that passes only when something comes: each recv takes `step` seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Dripping:
    """A transport whose answer comes in pieces, each after `seconds` on the clock; counts how often it was asked."""

    peer = "pi"
    opening = 0.0

    def __init__(self, clock: Clock, data: bytes, piece: int, seconds: float) -> None:
        self._clock, self._data, self._piece, self._seconds = clock, data, piece, seconds
        self.asked = 0

    def send(self, parts: list[bytes]) -> None:
        pass

    def receive_into(self, buffer: memoryview, timeout: float) -> int:
        self.asked += 1
        if timeout < self._seconds:
            self._clock.now += timeout
            raise TimeoutError
        self._clock.now += self._seconds
        size = min(len(buffer), self._piece, len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


def devlist(count: int, interfaces: int = 0) -> bytes:
    info = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1, bNumInterfaces=interfaces)
    one = structs.pack_device(info) + b"\xff\0\0\0" * interfaces
    head = structs.OP_COMMON.pack(0x111, structs.OP_REP_DEVLIST, 0) + structs.DEVLIST_COUNT.pack(count)
    return head + one * count


def exchanged(
    monkeypatch: pytest.MonkeyPatch, data: bytes, piece: int, seconds: float, opening: float = 0.0
) -> tuple[int, float]:
    """How many devices came, and how long it took on the clock; -1 if it was given up."""
    clock = Clock()
    monkeypatch.setattr(net, "time", clock)
    request = DevlistExchange()
    dripping: Any = Dripping(clock, data, piece, seconds)
    dripping.opening = opening
    sentence = ""
    try:
        net.exchange(dripping, request, 5.0)
    except ServerUnreachable as error:
        sentence = str(error)
    assert not sentence or re.search("(has not finished its answer|does not answer) within", sentence)
    return -1 if sentence else len(request.devices), clock.now


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    count, seconds = exchanged(monkeypatch, devlist(1), 1, 1.0)
    assert count == -1
    assert seconds < 6


def test_what_has_to_connect_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ssh has, which logs in first: that counts apart from what the server may take."""
    assert exchanged(monkeypatch, devlist(1), 1024, 8.0)[0] == -1
    assert exchanged(monkeypatch, devlist(1), 1024, 8.0, opening=20.0)[0] == 1
    count, seconds = exchanged(monkeypatch, devlist(1), 1, 1.0, opening=20.0)
    assert count == -1
    assert seconds < 26


def test_a_list_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    count, seconds = exchanged(monkeypatch, devlist(MAX_DEVICES), 1024, 0.5)
    assert count == -1
    assert seconds <= 20


def test_a_long_list_over_a_slow_link_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 devices, 12 kB, at 1.2 kB/s: twice the time-out."""
    count, seconds = exchanged(monkeypatch, devlist(40), 120, 0.1)
    assert count == 40
    assert seconds > 10


@pytest.mark.parametrize("kind", ["list", "import"])
def test_a_real_server_that_drips_is_given_up(kind: str) -> None:
    gone = threading.Event()

    def drip(sock: socket.socket) -> None:
        read_exactly(sock, 8 if kind == "list" else 40)
        with contextlib.suppress(OSError):
            for byte in devlist(1):
                sock.sendall(bytes([byte]))
                if gone.wait(0.05):
                    return

    with ScriptedServer(drip) as scripted:
        server = ServerAddress("127.0.0.1", scripted.port, 0.2)
        with pytest.raises((ServerUnreachable, RemoteProtocolError)) as caught:
            _ = server.devices() if kind == "list" else server.import_device(Selector("1-1"))
        gone.set()
        assert "pi" not in str(caught.value)


def send(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)


def test_counts_that_no_machine_has_are_refused() -> None:
    request = DevlistExchange()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=send, args=(theirs, devlist(MAX_INTERFACES // 255 + 1, 255)))
        sending.start()
        with pytest.raises(RemoteProtocolError, match=f"more than {MAX_INTERFACES} interfaces"):
            net.exchange(SocketTransport(ours, "pi"), request, 20.0)
        ours.shutdown(socket.SHUT_RDWR)
        sending.join()


def test_all_addresses_of_a_name_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    asked: list[float] = []

    class Silent:
        def __init__(self, *_: object) -> None:
            pass

        def settimeout(self, seconds: float) -> None:
            asked.append(seconds)

        def connect(self, _: object) -> None:
            clock.now += asked[-1]
            raise TimeoutError

        def close(self) -> None:
            pass

    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 3240))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [address] * 100)
    monkeypatch.setattr(socket, "socket", Silent)
    monkeypatch.setattr(net, "time", clock)
    with pytest.raises(ServerUnreachable, match="does not answer"):
        net.connect("many", 3240, 5.0)
    assert asked == [5.0] * 4


def test_the_kernel_keeps_the_time_that_it_is_given() -> None:
    ours, theirs = socket.socketpair()
    with ours as sock, theirs:
        theirs.send(b"x")
        assert SocketTransport(sock, "pi").receive_into(memoryview(bytearray(1)), 3.0) == 1
        value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 64)
        assert len(value) == struct.calcsize(transport._TIMEVAL)
        seconds, microseconds = struct.unpack(transport._TIMEVAL, value)
        assert 2.9 < seconds + microseconds / 1e6 < 3


def test_without_kernel_time_outs_a_device_is_used_and_may_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SO_RCVTIMEO cannot be set, the socket's own time-outs do, on both sides."""
    monkeypatch.setattr(transport, "_KERNEL_TIMEOUTS", False)
    monkeypatch.setattr(transport, "SEND_TIMEOUT", 0.05)
    with contextlib.closing(DemoServer()) as serving:
        server = ServerAddress("127.0.0.1", serving.listen("127.0.0.1", 0)[1], 5.0)
        device = server.import_device(Selector("1-1"))
        for _ in range(3):
            assert device.run(Urb.control(GET_CONFIGURATION), 5).status == 0
            threading.Event().wait(0.1)  # longer than the limit for sending: that one is not for silence
        device.close()


def test_a_format_that_the_kernel_refuses_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 32-bit system with 64-bit time wants 16 bytes; one that takes neither has none."""

    class Kernel:
        size = 16

        def __init__(self) -> None:
            self.value = b""

        def __enter__(self) -> Kernel:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def setsockopt(self, _level: int, _name: int, value: bytes) -> None:
            if len(value) < self.size:
                raise OSError(22, "Invalid argument")
            self.value = value

        def getsockopt(self, _level: int, _name: int, _size: int) -> bytes:
            return self.value

    pack = struct.pack
    monkeypatch.setattr(socket, "socket", Kernel)
    monkeypatch.setattr(struct, "pack", lambda form, *values: pack("=ii" if form == "@ll" else form, *values))
    assert transport._timeval_format() == "@qq"
    monkeypatch.setattr(Kernel, "size", 99)
    assert transport._timeval_format() == ""


def test_good_servers_are_served_as_before() -> None:
    with ScriptedServer(answer_devlist, answer_import) as scripted:
        server = ServerAddress("127.0.0.1", scripted.port, 5.0)
        assert [info.busid for info in server.devices()] == ["1-1"]
        server.import_device(Selector("1-1")).close()
