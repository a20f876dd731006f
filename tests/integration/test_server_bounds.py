"""`server` when threads, descriptors or memory run out, and clients that hoard: what one costs, no other one pays."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.scripted_server import read_exactly
from tests.waiting import wait_until
from usbip_capture.access.limits import Limits
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoDevice, DemoServer
from usbip_capture.device import Transfer
from usbip_capture.errors import ImportRefused, UsbipError
from usbip_capture.net import connecting as net
from usbip_capture.net import listening
from usbip_capture.server import Server
from usbip_capture.servers.address import Selector
from usbip_capture.servers.address import ServerAddress as Host
from usbip_capture.simulated.device import MAX_QUEUED
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire import structs

REQ_DEVLIST = structs.OP_COMMON.pack(0x111, structs.OP_REQ_DEVLIST, 0)
REQ_IMPORT = structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid("1-1")
SET_CONFIGURATION = bytes.fromhex("0009010000000000")


@pytest.fixture
def serving() -> Iterator[DemoServer]:
    with contextlib.closing(DemoServer()) as server:
        yield server


@pytest.fixture
def server(serving: DemoServer) -> Host:
    return Host("127.0.0.1", serving.listen("127.0.0.1", 0)[1], 5.0)


def fails_once(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """Have the next thread of this name not start; set when it has been tried."""
    tried = threading.Event()
    start = threading.Thread.start

    def failing(self: threading.Thread) -> None:
        if self.name == name and not tried.is_set():
            tried.set()
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", failing)
    return tried


def closed_by_peer(sock: socket.socket) -> bool:
    sock.settimeout(20)
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


def test_no_thread_for_a_connection_costs_that_client_only(
    server: Host, serving: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = fails_once(monkeypatch, "usbip-connection")
    with server.connect() as unlucky:
        assert closed_by_peer(unlucky)
        assert tried.is_set()
    assert [info.busid for info in server.devices()] == ["1-1"]
    serving.close()  # raises nothing


def test_no_thread_for_a_socket_that_is_handed_over(serving: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_once(monkeypatch, "usbip-connection")
    with pytest.raises(UsbipError, match="no connection can be served"):
        serving.connect()
    with serving.connect() as good:
        good.sendall(REQ_DEVLIST)
        assert read_exactly(good, 12)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(24, "x"), MemoryError()], ids=repr)
def test_an_acceptor_survives_whatever_serving_raises(error: Exception) -> None:
    served = threading.Event()
    errors = iter([error])

    def serve(sock: socket.socket, peer: listening.Peer) -> None:
        for each in errors:
            raise each
        sock.close()
        served.set()

    listener = listening.listen("127.0.0.1", 0)
    address = listener.getsockname()
    acceptor = listening.Acceptor(listener, serve, "test")
    for _ in range(2):
        with socket.create_connection(address, 20) as sock:
            assert closed_by_peer(sock)
    assert served.wait(20)
    assert acceptor.alive
    acceptor.close()
    acceptor.close()
    assert not acceptor.alive


def test_an_acceptor_without_a_thread_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_once(monkeypatch, "usbip-server")
    with contextlib.closing(Server()) as server, pytest.raises(UsbipError, match="cannot listen"):
        server.listen("127.0.0.1", 0)


def test_a_demo_log_that_cannot_set_up_a_client_goes_on(serving: DemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = serving.listen_log("127.0.0.1", 0)
    errors = iter([OSError(22, "Invalid argument")])
    set_options = net.set_options

    def failing(sock: socket.socket) -> None:
        for error in errors:
            raise error
        set_options(sock)

    monkeypatch.setattr(net, "set_options", failing)
    with socket.create_connection(address, 20) as unlucky:
        assert closed_by_peer(unlucky)
    with socket.create_connection(address, 20) as good:
        serving.log.write("I", "test", "hello")
        assert good.recv(100)


def test_idle_connections_shut_nobody_out(server: Host, serving: DemoServer) -> None:
    """The one that has waited longest is given up for a new one."""
    serving.limits = Limits(max_waiting=8)
    device = server.import_device(Selector("1-1"))
    idle = []
    for number in range(20):  # one after the other: who is given up keeps his place until he has left
        idle.append(server.connect())
        if number >= 8:
            assert closed_by_peer(idle[number - 8])
    wait_until("those that were given up have left", lambda: len(serving.clients) == 9)
    assert server.devices() == []
    assert device.run(Urb.control(bytes.fromhex("8008000000000100")), 5).status == 0
    device.close()
    for sock in idle:
        sock.close()


def test_descriptors_that_idle_connections_hold_are_taken_from_them(
    server: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accept fails as long as there are more than two others: as with few file descriptors."""
    accept = socket.socket.accept
    open_now: list[socket.socket] = []

    def accepting(self: socket.socket) -> tuple[socket.socket, Any]:
        if sum(sock.fileno() >= 0 for sock in open_now) > 2:
            raise OSError(24, "Too many open files")
        sock, address = accept(self)
        open_now.append(sock)
        return sock, address

    monkeypatch.setattr(socket.socket, "accept", accepting)
    idle = [server.connect() for _ in range(6)]
    assert [info.busid for info in server.devices()] == ["1-1"]
    for sock in idle:
        sock.close()


def test_a_request_that_drips_in_is_given_up(server: Host, serving: DemoServer) -> None:
    serving.limits = Limits(request_timeout=0.2)
    stop = threading.Event()
    with server.connect() as slow:

        def drip() -> None:
            with contextlib.suppress(OSError):
                for byte in REQ_IMPORT:
                    slow.sendall(bytes([byte]))
                    if stop.wait(0.1):
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert closed_by_peer(slow)
        stop.set()
        dripping.join()


def test_a_device_that_is_removed_while_it_is_opened_is_not_handed_over(server: Host, serving: DemoServer) -> None:
    opening, removed = threading.Event(), threading.Event()
    opened: list[DemoDevice] = []

    def open_slowly() -> DemoDevice:
        opening.set()
        removed.wait(20)
        opened.append(DemoDevice())
        return opened[0]

    serving.add(demo.INFO, open_slowly)
    errors: list[Exception] = []

    def import_it() -> None:
        try:
            server.import_device(Selector("1-1"))
        except ImportRefused as error:
            errors.append(error)

    client = threading.Thread(target=import_it)
    client.start()
    assert opening.wait(20)
    serving.remove("1-1")
    removed.set()
    client.join()
    assert len(errors) == 1
    assert not opened[0].alive


def test_a_device_that_raises_anything_when_opened_can_be_opened_again(server: Host, serving: DemoServer) -> None:
    devices: list[Any] = [ZeroDivisionError("a bug"), None]

    def open_device() -> DemoDevice:
        if (error := devices.pop(0)) is not None:
            raise error
        return DemoDevice()

    serving.add(demo.INFO, open_device)
    with pytest.raises(ImportRefused):
        server.import_device(Selector("1-1"))
    server.import_device(Selector("1-1")).close()


def loopback() -> DemoDevice:
    device = DemoDevice()
    assert device.run(Urb.control(SET_CONFIGURATION), 5).status == 0
    return device


def test_loopback_data_that_nobody_reads_is_not_taken() -> None:
    device = loopback()
    done: list[Completion] = []
    for _ in range(64):
        device.submit(Transfer(Urb(TransferType.BULK, BULK_OUT, 1 << 18, bytes(1 << 18)), done.append))
    assert len(done) <= MAX_QUEUED >> 18
    got = 0
    while got < 64 << 18:
        got += device.run(Urb(TransferType.BULK, BULK_IN, 1 << 18), 5).actual_length
    assert len(done) == 64
    device.close()


def test_a_closed_device_frees_what_it_kept_without_the_cycle_collector() -> None:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        device = loopback()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            device.submit(Transfer(Urb(TransferType.BULK, BULK_OUT, 1 << 18, bytes(1 << 18)), lambda _: None))
        assert tracemalloc.get_traced_memory()[0] - before > 3 << 18
        device.close()
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 16
    finally:
        tracemalloc.stop()
        gc.enable()


def test_notifications_that_nobody_reads_are_bounded() -> None:
    device = loopback()
    for _ in range(40_000):  # SET_CONTROL_LINE_STATE: each is answered by a notification
        device.run(Urb.control(bytes.fromhex("2122010000000000")), 5)
    size = device._queues[demo.CDC_NOTIFY].size
    assert size <= MAX_QUEUED + 200
    device.close()


def test_a_client_with_too_much_pending_loses_its_device_and_nobody_else(server: Host) -> None:
    with server.connect() as hoarder:
        hoarder.sendall(REQ_IMPORT)
        read_exactly(hoarder, 320)
        setup = structs.CMD_SUBMIT.pack(1, 1, demo.INFO.devid, 0, 0, 0, 0, 0, 0, 0, SET_CONFIGURATION)
        hoarder.sendall(setup)
        read_exactly(hoarder, 48)
        with contextlib.suppress(OSError):
            for first in range(2, 80_000, 1000):
                hoarder.sendall(
                    b"".join(
                        structs.CMD_SUBMIT.pack(1, n, demo.INFO.devid, 1, 3, 0, 8, 0, 0, 7, bytes(8))
                        for n in range(first, first + 1000)
                    )
                )
        hoarder.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            while hoarder.recv(65536):
                pass
    wait_until("the device is free again", lambda: [info.busid for info in server.devices()] == ["1-1"])


def test_the_cost_of_unlinking_does_not_grow_with_what_is_pending() -> None:
    """From the last to the first: a transfer is found without looking at the others. Comparisons are counted."""

    class Counting(Transfer):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counting.compared += 1
            return self is other

        __hash__ = object.__hash__

    device = loopback()
    transfers = [Counting(Urb(TransferType.INTERRUPT, demo.CDC_NOTIFY, 10), lambda _: None) for _ in range(2000)]
    for transfer in transfers:
        device.submit(transfer)
    for transfer in reversed(transfers):
        device.cancel(transfer)
    assert all(transfer.completion is not None for transfer in transfers)
    assert Counting.compared <= 2 * len(transfers)
    device.close()


def test_sessions_are_freed_with_their_connections(serving: DemoServer) -> None:
    alive: weakref.WeakSet[DemoDevice] = weakref.WeakSet()

    def open_device() -> DemoDevice:
        device = DemoDevice()
        alive.add(device)
        return device

    serving.add(demo.INFO, open_device)
    for _ in range(5):
        with serving.connect() as client:
            client.sendall(REQ_IMPORT)
            assert read_exactly(client, 320)
        wait_until("its connection has ended", lambda: not serving._connections)
    gc.collect()
    assert len(alive) <= 1
