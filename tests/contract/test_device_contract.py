"""What every `Device` promises, wherever the USB device lives: the demo device reached in eight ways."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fakes.scripted_server import INFO, ScriptedServer, answer_import, read_request, ret_submit, ret_unlink
from tests.fakes.veiled_transport import VeiledTransport, forward
from tests.programs.forked import forked
from tests.waiting import wait_until
from usbip_capture import PcapWriter, get_backend
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_NOTIFY, ISO_IN, ISO_OUT, DemoDevice, DemoServer
from usbip_capture.device import Device, Transfer, after_unlink
from usbip_capture.devices import backend as backend_module
from usbip_capture.devices.backend import BackendDevice
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.errors import DeviceNotFound, LocalProtocolError
from usbip_capture.net.transport import SocketTransport
from usbip_capture.server import Server
from usbip_capture.simulated.delayed import Delayed
from usbip_capture.tap import Tapped
from usbip_capture.usb import setup as requests
from usbip_capture.usb.status import (
    ECONNRESET,
    ENOENT,
    ENOMEM,
    EOPNOTSUPP,
    EPIPE,
    EPROTO,
    EREMOTEIO,
    ESHUTDOWN,
    EXDEV,
)
from usbip_capture.usb.urb import SHORT_NOT_OK, Completion, IsoPacket, TransferType, Urb

TIMEOUT = 10.0
PEER = "the test's server"
OVER_BACKEND = "over a PyUSB backend"
VEILED = "over another transport"
KINDS = ["simulated", "delayed", "tapped", "remote", "remote, tapped", "re-exported", VEILED, OVER_BACKEND]


def bulk_out(data: bytes) -> Urb:
    return Urb(TransferType.BULK, BULK_OUT, len(data), data)


def bulk_in(length: int, flags: int = 0) -> Urb:
    return Urb(TransferType.BULK, BULK_IN, length, flags=flags)


def control(setup: requests.Setup, data: bytes = b"") -> Urb:
    return Urb.control(setup.pack(), data)


def remote(server: Server) -> RemoteDevice:
    """The server's device, through a socket."""
    ours, theirs = socket.socketpair()
    server.serve_socket(theirs)
    return import_device(SocketTransport(ours, PEER), demo.BUSID, TIMEOUT)


def veiled(server: Server) -> RemoteDevice:
    """The server's device, through a transport that is not a socket, and through the relay's forwarding."""
    ours, between = socket.socketpair()
    near, theirs = socket.socketpair()
    server.serve_socket(theirs)
    forward(VeiledTransport(between, "the client"), SocketTransport(near, PEER))
    return import_device(VeiledTransport(ours, PEER), demo.BUSID, TIMEOUT)


class Opener:
    """Opens the demo device in one of the ways, and closes all that it took."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._stack = ExitStack()
        self.innermost: list[DemoDevice] = []

    def open(self) -> Device:
        server = DemoServer()
        server.add(demo.INFO, self._simulated)
        self._stack.callback(server.close)
        device: Device
        if self.kind in ("simulated", "tapped"):
            device = self._simulated()
        elif self.kind == "delayed":
            device = Delayed(self._simulated(), 0.001)
        elif self.kind == "re-exported":
            outer = Server()
            self._stack.callback(outer.close)
            outer.add(demo.INFO, lambda: remote(server))
            device = remote(outer)
        elif self.kind == VEILED:
            device = veiled(server)
        elif self.kind == OVER_BACKEND:
            backend = self._stack.enter_context(get_backend(*server.listen("127.0.0.1", 0)))
            device = BackendDevice(backend, next(backend.enumerate_devices()))
        else:
            device = remote(server)
        if "tapped" in self.kind:
            writer = self._stack.enter_context(PcapWriter(io.BytesIO()))
            device = Tapped(device, writer.add_usb_interface(device.info, server="test"))
        self._stack.callback(device.close)
        return device

    def _simulated(self) -> DemoDevice:
        self.innermost.append(DemoDevice())
        return self.innermost[-1]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest) -> Iterator[Opener]:
    opened = Opener(request.param)
    yield opened
    opened.close()


@pytest.fixture
def device(opener: Opener) -> Device:
    opened = opener.open()
    assert opened.run(control(requests.set_configuration(1)), TIMEOUT).status == 0
    return opened


def run(device: Device, urb: Urb) -> Completion:
    completion = device.run(urb, TIMEOUT)
    assert completion.status != -ECONNRESET, "timed out"
    return completion


def test_descriptors(device: Device) -> None:
    for kind, index, expected in (
        (requests.DT_DEVICE, 0, demo.DESCRIPTORS.device),
        (requests.DT_CONFIGURATION, 0, demo.DESCRIPTORS.configurations[0]),
        (requests.DT_BOS, 0, demo.DESCRIPTORS.bos),
    ):
        completion = run(device, control(requests.get_descriptor(kind, index, 0, 1000)))
        assert bytes(completion.data) == expected
        assert bytes(run(device, control(requests.get_descriptor(kind, index, 0, 4))).data) == expected[:4]


def test_short_read_keeps_its_length(device: Device) -> None:
    assert run(device, bulk_out(b"hello")).actual_length == 5
    completion = run(device, bulk_in(64))
    assert (completion.status, completion.actual_length, bytes(completion.data)) == (0, 5, b"hello")


def test_short_not_ok(device: Device) -> None:
    run(device, bulk_out(b"hello"))
    completion = run(device, bulk_in(64, SHORT_NOT_OK))
    assert (completion.status, bytes(completion.data)) == (-EREMOTEIO, b"hello")


@pytest.mark.parametrize("size", [0, 1, 512, 4096, 100_000, 1 << 20])
def test_every_size_comes_back_whole(device: Device, size: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(min(size, 4096))) * max(size // 4096, 1)
    data = data.ljust(size, b"\xa5")[:size]
    run(device, bulk_out(data))
    assert bytes(run(device, bulk_in(max(size, 1))).data) == data


def test_control_data_both_ways(device: Device) -> None:
    data = bytes(range(64))
    assert run(device, control(requests.Setup(0x40, 0x10, 0, 0, 64), data)).status == 0
    assert bytes(run(device, control(requests.Setup(0xC0, 0x10, 0, 0, 100))).data) == data


def test_unknown_requests_stall(device: Device) -> None:
    assert run(device, control(requests.Setup(0xC0, 0x77, 0, 0, 4))).status == -EPIPE
    assert run(device, control(requests.get_descriptor(requests.DT_STRING, 99, 0x0409, 255))).status == -EPIPE


def test_a_halted_endpoint_stalls_until_cleared(device: Device) -> None:
    halt = requests.Setup(0x02, requests.SET_FEATURE, requests.ENDPOINT_HALT, BULK_OUT, 0)
    assert run(device, control(halt)).status == 0
    assert run(device, bulk_out(b"x")).status == -EPIPE
    assert run(device, control(requests.clear_halt(BULK_OUT))).status == 0
    assert run(device, bulk_out(b"x")).status == 0


def test_an_idle_read_can_be_unlinked(device: Device) -> None:
    assert device.run(bulk_in(8), 0.02).status == -ECONNRESET
    run(device, bulk_out(b"later"))
    assert bytes(run(device, bulk_in(8)).data) == b"later"


def test_several_idle_reads_are_unlinked_together(device: Device) -> None:
    transfers = [Transfer(bulk_in(8)) for _ in range(4)]
    for transfer in transfers:
        device.submit(transfer)
    device.unlink(transfers, 5.0)
    assert [after_unlink(transfer).status for transfer in transfers] == [-ECONNRESET] * 4


def test_cancelling_what_is_finished_changes_nothing(device: Device) -> None:
    transfer = Transfer(bulk_out(b"x"))
    device.submit(transfer)
    assert device.wait(transfer, TIMEOUT)
    device.cancel(transfer)
    device.abandon(transfer)
    assert transfer.completion is not None
    assert transfer.completion.status == 0
    with pytest.raises(LocalProtocolError):
        transfer.finish(Completion(0))


@pytest.mark.parametrize("opener", [kind for kind in KINDS if kind != OVER_BACKEND], indirect=True)
def test_isochronous_both_ways(device: Device) -> None:
    assert run(device, control(requests.set_interface(3, 1))).status == 0
    slots = [IsoPacket(i * 64, 64) for i in range(8)]
    sizes = [5, 64, 1, 0, 33, 2, 7, 64]
    out = [IsoPacket(i * 64, n) for i, n in enumerate(sizes)]
    data = bytes(i & 0xFF for i in range(512))
    sent = run(device, Urb(TransferType.ISOCHRONOUS, ISO_OUT, 512, data, interval=8, packets=out))
    assert [p.actual_length for p in sent.packets] == sizes
    got = run(device, Urb(TransferType.ISOCHRONOUS, ISO_IN, 512, interval=8, packets=slots))
    assert [(p.offset, p.actual_length) for p in got.packets] == [(i * 64, n) for i, n in enumerate(sizes)]
    assert bytes(got.data) == b"".join(data[p.offset : p.offset + p.length] for p in out)


@pytest.mark.parametrize("opener", [OVER_BACKEND], indirect=True)
def test_pyusb_has_no_lengths_for_single_packets(device: Device) -> None:
    """So that what has short ones between is refused as a whole, rather than sent wrongly."""
    assert run(device, control(requests.set_interface(3, 1))).status == 0
    packets = [IsoPacket(0, 5), IsoPacket(64, 64)]
    refused = run(device, Urb(TransferType.ISOCHRONOUS, ISO_OUT, 128, bytes(128), interval=8, packets=packets))
    assert (refused.status, [packet.status for packet in refused.packets]) == (-EOPNOTSUPP, [-EXDEV, -EXDEV])


def test_isochronous_in_full_packets(device: Device) -> None:
    assert run(device, control(requests.set_interface(3, 1))).status == 0
    packets = [IsoPacket(i * 64, 64) for i in range(7)] + [IsoPacket(448, 10)]
    data = bytes(i & 0xFF for i in range(458))
    sent = run(device, Urb(TransferType.ISOCHRONOUS, ISO_OUT, 458, data, interval=8, packets=packets))
    assert [p.actual_length for p in sent.packets] == [64] * 7 + [10]
    got = run(device, Urb(TransferType.ISOCHRONOUS, ISO_IN, 458, interval=8, packets=packets))
    assert [(p.offset, p.actual_length) for p in got.packets] == [(p.offset, p.length) for p in packets]
    assert bytes(got.data) == data


def test_many_in_flight_finish_once_and_in_order(device: Device) -> None:
    finished: list[bytes] = []
    enough = threading.Event()

    def done(completion: Completion) -> None:
        finished.append(bytes(completion.data))
        if len(finished) == 50:
            enough.set()

    for _ in range(50):
        device.submit(Transfer(bulk_in(16), done))
    for i in range(50):
        run(device, bulk_out(b"%d" % i))
    assert enough.wait(TIMEOUT)
    assert finished == [b"%d" % i for i in range(50)]


def test_threads_do_not_disturb_each_other(device: Device) -> None:
    def work(fill: int, good: list[int]) -> None:
        data = bytes([fill]) * 32
        for _ in range(100):
            stored = run(device, control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 18)))
            good.append(bytes(stored.data) == demo.DESCRIPTORS.device and run(device, bulk_out(data)).actual_length)

    good: list[int] = []
    threads = [threading.Thread(target=work, args=(i, good)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert good == [32] * 600


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_that_closes_it_leaves_it_to_its_parent(device: Device) -> None:
    waiting = Transfer(bulk_in(16))
    device.submit(waiting)
    assert forked(device.close) == 0
    assert run(device, bulk_out(b"to the parent")).status == 0
    assert device.wait(waiting, TIMEOUT)
    assert waiting.completion is not None
    assert bytes(waiting.completion.data) == b"to the parent"


def test_what_is_abandoned_is_finished_at_once(device: Device) -> None:
    """Whatever it waits for: an endpoint that has nothing to send, its turn behind others, an answer."""
    waiting = [Transfer(bulk_in(8)) for _ in range(3)]
    for transfer in waiting:
        device.submit(transfer)
    for transfer in waiting:
        device.cancel(transfer)
        device.abandon(transfer)
        assert transfer.completion is not None
        assert transfer.completion.status == -ECONNRESET
    assert bytes(run(device, control(requests.get_descriptor(requests.DT_DEVICE, 0, 0, 8))).data)


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


class Foreign(Exception):
    """What a backend of somebody else's may raise."""


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


@pytest.mark.parametrize("opener", [OVER_BACKEND], indirect=True)
def test_what_a_backend_raises_of_its_own_is_a_protocol_error(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(device, BackendDevice)

    def fails(*_: object) -> int:
        raise Foreign

    with monkeypatch.context() as patch:
        for name in ("ctrl_transfer", "bulk_write"):
            patch.setattr(device._backend, name, fails)
        for urb in [control(requests.Setup(0xC0, 0x10, 0, 0, 4)), bulk_out(b"x")] * 2:
            assert run(device, urb).status == -EPROTO
    assert run(device, bulk_out(b"x")).status == 0
    patched = pytest.MonkeyPatch()
    for name in ("release_interface", "close_device"):
        patched.setattr(device._backend, name, fails)
    device.close()  # never raises
    patched.undo()


@pytest.mark.parametrize("opener", [OVER_BACKEND], indirect=True)
def test_close_returns_although_a_backend_does_not(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(device, BackendDevice)
    monkeypatch.setattr(backend_module, "_CLOSE_PATIENCE", 0.05)
    begun, goes_on = threading.Event(), threading.Event()

    def hangs(*_: object) -> int:
        begun.set()
        goes_on.wait(TIMEOUT)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(device._backend, "ctrl_transfer", hangs)
        transfer = Transfer(control(requests.Setup(0xC0, 0x10, 0, 0, 4)))
        device.submit(transfer)
        assert begun.wait(TIMEOUT)
        device.close()
    assert transfer.completion is not None
    assert transfer.completion.status == -ECONNRESET
    assert "stays open" in caplog.text
    goes_on.set()


@pytest.mark.parametrize("failing", ["open_device", "get_device_descriptor", "ctrl_transfer", "get_configuration"])
def test_a_backend_that_fails_when_it_is_opened(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with get_backend("demo") as backend:
        dev = next(backend.enumerate_devices())

        def fails(*_: object) -> object:
            raise Foreign("no such thing")

        monkeypatch.setattr(backend, failing, fails)
        with pytest.raises(DeviceNotFound, match="Foreign no such thing"):
            BackendDevice(backend, dev)


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


def test_local_devices_refuse_endpoints_that_are_not_there() -> None:
    device = DemoDevice()
    assert device.run(bulk_in(8), TIMEOUT).status == -ENOENT  # not configured yet
    device.close()
