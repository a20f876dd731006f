"""What every `Device` promises when something goes wrong: unplugged, closed, left by its server, short of threads."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.contract.openers import PEER, TIMEOUT, Foreign, Opener, bulk_in, bulk_out, control, run
from tests.fakes.scripted_server import INFO, ScriptedServer, answer_import, read_request, ret_submit, ret_unlink
from tests.waiting import wait_until
from usbip_capture.demo.device import CDC_NOTIFY
from usbip_capture.device import Device, Transfer
from usbip_capture.devices.remote import import_device
from usbip_capture.net.transport import SocketTransport
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import (
    ECONNRESET,
    ENOMEM,
    EPROTO,
    ESHUTDOWN,
)
from usbip_capture.usb.urb import Completion, TransferType, Urb


def test_unplugged_in_mid_transfer(device: Device, opener: Opener) -> None:
    lost: list[str] = []
    reported = threading.Event()

    def on_lost(reason: str) -> None:
        lost.append(reason)
        reported.set()

    device.watch(on_lost)
    waiting = [Transfer(bulk_in(8)), Transfer(Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16, interval=256))]
    for transfer in waiting:
        device.submit(transfer)
    opener.innermost[-1].unplug()
    for transfer in waiting:
        assert device.wait(transfer, TIMEOUT)
        assert transfer.completion is not None
        assert transfer.completion.status == -ESHUTDOWN
    assert reported.wait(TIMEOUT)
    assert run(device, bulk_in(8)).status == -ESHUTDOWN


def test_close_gives_everything_back(device: Device, opener: Opener) -> None:
    waiting = Transfer(bulk_in(8), lambda completion: None)
    device.submit(waiting)
    device.close()
    assert waiting.completion is not None
    assert waiting.completion.status == -ECONNRESET  # our own end is not the loss of the device
    device.close()
    assert run(device, bulk_in(8)).status == -ESHUTDOWN


def test_closed_by_what_a_transfer_finishes(device: Device) -> None:
    """In a callback, or in the finalizer of what only the transfer has kept: on the thread that reads for all."""
    closed = threading.Event()

    def close(completion: Completion) -> None:
        device.close()
        closed.set()

    waiting = [Transfer(bulk_in(8), close) for _ in range(2)]  # read for by the device's own thread, if it has one
    for transfer in waiting:
        device.submit(transfer)
    ending = threading.Thread(target=device.close, daemon=True)
    ending.start()
    ending.join(TIMEOUT)
    assert not ending.is_alive()
    assert closed.wait(TIMEOUT)
    assert [transfer.completion and transfer.completion.status for transfer in waiting] == [-ECONNRESET] * 2


def test_closed_by_the_callback_of_another_while_one_waits(device: Device) -> None:
    closed = threading.Event()

    def close(completion: Completion) -> None:
        device.close()
        closed.set()

    idle, other = Transfer(bulk_in(8)), Transfer(control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 18)), close)
    device.submit(idle)
    leading = threading.Thread(target=device.wait, args=[idle], daemon=True)
    leading.start()
    wait_until("it waits", leading.is_alive)
    device.submit(other)
    assert closed.wait(TIMEOUT)
    leading.join(TIMEOUT)
    assert not leading.is_alive()
    assert idle.completion is not None
    assert idle.completion.status == -ECONNRESET


def test_a_callback_that_raises_stops_nothing(device: Device) -> None:
    called = threading.Event()

    def raises(completion: Completion) -> None:
        called.set()
        raise ValueError("a fault of the program's")

    for _ in range(3):
        transfer = Transfer(control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 18)), raises)
        device.submit(transfer)
        assert called.wait(TIMEOUT)
        called.clear()
    assert bytes(run(device, control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 8))).data)
    for _ in range(3):
        device.submit(Transfer(bulk_in(8), raises))
    device.close()
    assert called.wait(TIMEOUT)


def test_when_no_thread_can_be_started(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    device = opener.open()
    start, refused = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(("usbip-reader", "pyusb-endpoint", "delay-")):
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    finished = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    transfer = Transfer(
        control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 18)), lambda completion: finished.set()
    )
    device.submit(transfer)
    assert finished.wait(TIMEOUT)
    assert transfer.completion is not None
    assert transfer.completion.status in ((-ENOMEM,) if refused and opener.kind != "delayed" else (0,))
    monkeypatch.undo()
    assert run(device, control(requests.set_configuration(1))).status == 0  # it goes on when there are threads again
    device.close()


def test_a_device_that_cannot_be_watched_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opener("remote")
    device = opened.open()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    lost: list[str] = []
    device.watch(lost.append)
    monkeypatch.undo()
    assert not device.alive
    assert len(lost) == 1
    assert "thread" in lost[0]
    opened.close()


def test_a_device_that_raises_keeps_nobody_waiting(
    device: Device, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same process its exception is the caller's; behind a server it costs the connection, and no other."""

    def fails(*_: object) -> None:
        raise Foreign

    monkeypatch.setattr(opener.innermost[-1], "control", fails)
    try:
        assert run(device, control(requests.Setup(0xC0, 0x10, 0, 0, 4))).status in (-EPROTO, -ESHUTDOWN)
    except Foreign:
        assert opener.kind in ("simulated", "tapped")
    other = opener.open()
    assert run(other, control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 8))).status == 0


STALL_AT = [0, 1, 20_000, 65_535]


@pytest.mark.parametrize("sent", STALL_AT)
@pytest.mark.parametrize("into", [False, True], ids=["", "in place"])
def test_a_server_that_stops_inside_a_body(sent: int, into: bool) -> None:
    """`abandon` finishes the transfer in bounded time, and its memory is not written to any more."""
    go_on = threading.Event()

    def script(sock: socket.socket) -> None:
        answer_import(sock)
        _, seqnum, _, length = read_request(sock)
        sock.sendall(ret_submit(seqnum, 0, length, b"x" * sent))
        go_on.wait(TIMEOUT)
        sock.sendall(b"x" * (length - sent))
        while True:
            command, seqnum, _, _ = read_request(sock)
            sock.sendall(ret_submit(seqnum) if command == 1 else ret_unlink(seqnum, 0))

    with ScriptedServer(script) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        device = import_device(SocketTransport(sock, PEER), INFO.busid, TIMEOUT)
        memory = bytearray(65_536)
        transfer = Transfer(bulk_in(65_536), into=memoryview(memory) if into else None)
        device.submit(transfer)
        assert not device.wait(transfer, 0.1)
        device.cancel(transfer)
        assert not device.wait(transfer, 0.01)
        device.abandon(transfer)
        assert transfer.completion is not None
        assert transfer.completion.status == -ECONNRESET
        memory[:] = bytes(65_536)
        other = Transfer(bulk_in(8), lambda completion: None)
        device.submit(other)  # read for by the device's own thread
        go_on.set()
        assert device.run(bulk_out(b""), TIMEOUT).status == 0
        assert not any(memory)
        device.close()


def test_an_abandoned_transfer_wakes_the_thread_that_waits_for_it() -> None:
    """Which may be the one that reads for all, in a system call that nothing comes to an end of."""

    def script(sock: socket.socket) -> None:
        answer_import(sock)
        read_request(sock)
        sock.recv(1000)
        sock.recv(1000)

    with ScriptedServer(script) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        device = import_device(SocketTransport(sock, PEER), INFO.busid, TIMEOUT)
        transfer = Transfer(bulk_in(8))
        device.submit(transfer)
        waits = threading.Thread(target=device.wait, args=[transfer])
        waits.start()
        wait_until("it reads", device._reading.locked)
        device.cancel(transfer)
        device.abandon(transfer)
        waits.join(TIMEOUT)
        assert not waits.is_alive()
        device.close()
