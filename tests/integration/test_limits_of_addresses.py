"""`server` and `relay` under a flood of one address: what another address gets. Real sockets of 127.0.0.0/8."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.fakes.cutting_transport import CuttingTransport
from tests.fakes.scripted_server import read_exactly
from tests.fakes.served import REQ_IMPORT, Client, Served, reply, submit
from tests.waiting import wait_until
from usbip_capture.access.limits import TOO_MANY, TOO_MANY_OF_ADDRESS, TOO_OFTEN, Limits
from usbip_capture.collector.delivery import Delivery
from usbip_capture.collector.listen_addresses import TCP, UDP, ListenAddress
from usbip_capture.collector.listening import ListeningCollector
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import DemoDevice
from usbip_capture.net import listening
from usbip_capture.net.listening import Acceptor, Admission, Peer, listen
from usbip_capture.net.transport import Transport
from usbip_capture.relay.relay import Relay
from usbip_capture.server import Server, exporter, in_flight
from usbip_capture.server.in_flight import InFlight
from usbip_capture.servers.address import ServerAddress
from usbip_capture.wire import structs

FLOOD, HONEST = "127.0.0.2", "127.0.0.3"
REQ_DEVLIST = structs.OP_COMMON.pack(0x111, structs.OP_REQ_DEVLIST, 0)
SET_CONFIGURATION = bytes.fromhex("0009010000000000")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine on Linux without a word"
)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.server.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def connect(address: tuple[str, int], source: str) -> socket.socket:
    return socket.create_connection(address, 20, (source, 0))


def is_broken(sock: Client) -> bool:
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


def listed(sock: socket.socket) -> int:
    sock.sendall(REQ_DEVLIST)
    return int.from_bytes(read_exactly(sock, 12)[8:], "big")


def test_a_client_in_its_request_outlives_a_flood(served: Served, stack: contextlib.ExitStack) -> None:
    served.server.limits = Limits(connections_per_second=0, max_waiting=8)
    honest = stack.enter_context(connect(served.address, HONEST))
    honest.sendall(REQ_DEVLIST[:3])
    for _ in range(100):
        stack.enter_context(connect(served.address, FLOOD))
    last = stack.enter_context(connect(served.address, FLOOD))
    assert listed(last) == 1  # all that came before are served or given up
    honest.sendall(REQ_DEVLIST[3:])
    assert len(read_exactly(honest, 12)) == 12
    assert served.server.admission.refused.keys() <= {TOO_MANY}  # those whose places are not free yet
    wait_until("they are gone", lambda: len(served.server.clients) <= 8)


def test_who_connects_too_often_keeps_nobody_else_out(served: Served, stack: contextlib.ExitStack) -> None:
    served.server.limits = Limits(connections_per_second=1)
    first = stack.enter_context(connect(served.address, FLOOD))
    refused = 0
    for _ in range(50):
        with contextlib.suppress(ConnectionResetError), connect(served.address, FLOOD) as sock:
            refused += is_broken(sock)
    assert listed(first) == 1
    assert listed(stack.enter_context(connect(served.address, HONEST))) == 1
    assert served.server.admission.refused[TOO_OFTEN] >= 40
    assert served.is_free()  # from 127.0.0.1 to 127.0.0.1: this machine


def test_no_more_clients_of_an_address_than_there_may_be(served: Served, stack: contextlib.ExitStack) -> None:
    served.server.limits = Limits(max_clients_per_address=1)
    device = stack.enter_context(connect(served.address, FLOOD))
    device.sendall(REQ_IMPORT)
    assert read_exactly(device, 320)[7] == 0
    assert is_broken(stack.enter_context(connect(served.address, FLOOD)))
    assert listed(stack.enter_context(connect(served.address, HONEST))) == 0
    assert served.server.admission.refused == {TOO_MANY_OF_ADDRESS: 1}
    event = next(event for event in served.server.events.after(0, 100) if event.kind == "refused")
    assert (event.text, event.rule) == (TOO_MANY_OF_ADDRESS, "")


def test_clients_without_a_device_are_fewer_where_there_are_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "most_descriptors", lambda: 64)
    with contextlib.closing(Server()) as server:
        assert server.limits.max_waiting == 16
        server.limits = Limits(max_waiting=5)
        assert server.limits.max_waiting == 5


def test_a_process_with_few_descriptors_serves_others_under_a_flood(stack: contextlib.ExitStack) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))\n"
        "from usbip_capture.demo.device import DemoServer\n"
        "server = DemoServer(); print(server.listen('127.0.0.1', 0)[1], flush=True); sys.stdin.read()"
    )
    process = stack.enter_context(
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.stdin.close)
    address = ("127.0.0.1", int(process.stdout.readline()))
    for _ in range(200):
        with contextlib.suppress(ConnectionResetError):
            stack.enter_context(connect(address, FLOOD))
    assert listed(stack.enter_context(connect(address, HONEST))) == 1
    assert len(os.listdir(f"/proc/{process.pid}/fd")) < 48


def test_a_client_that_has_left_costs_the_acceptor_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is reset before it is served: nobody else is given up, or waits, for it."""
    monkeypatch.setattr(listening, "PAUSE", 600.0)
    served: list[socket.socket] = []
    errors = [OSError(22, "Invalid argument"), ConnectionResetError(104, "reset")]
    made_room: list[bool] = []

    def serve(sock: socket.socket, peer: Peer) -> None:
        if errors:
            raise errors.pop()
        served.append(sock)
        sock.sendall(b"x")

    listener = listen("127.0.0.1", 0)
    address = listener.getsockname()
    acceptor = Acceptor(listener, serve, "test", make_room=lambda: made_room.append(True))
    with contextlib.closing(acceptor):
        for _ in range(2):
            with connect(address, FLOOD) as sock:
                assert is_broken(sock)
        with connect(address, HONEST) as sock:
            assert sock.recv(1) == b"x"
    served[0].close()
    assert not made_room


def test_a_network_of_ipv6_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    admission = Admission(limits=Limits(connections_per_second=5), clock=lambda: now[0])
    admitted = sum(admission.admits(Peer(f"2001:db8::{number:x}", 1, "2001:db8:1::1")) for number in range(1000))
    assert admitted == 5
    assert len(caplog.messages) == 1
    now[0] += 1
    assert admission.admits(Peer("2001:db8::1", 1, "2001:db8:1::1"))
    assert admission.admits(Peer("2001:db8:0:1::1", 1, "2001:db8:1::1"))


# -- bytes in flight


def test_an_address_has_so_many_bytes_in_flight_and_of_all_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MAX_OF_ADDRESS", 100)
    monkeypatch.setattr(in_flight, "MAX_OF_ALL", 150)
    flying = InFlight()
    sizes = {"a": 60, "b": 41, "c": 70}
    flying.join("x", lambda: sizes["a"])
    assert not flying.is_too_much("x")
    second = lambda: sizes["b"]  # noqa: E731
    flying.join("x", second)
    assert flying.is_too_much("x")
    sizes["b"] = 30
    flying.join("y", lambda: sizes["c"])
    assert flying.is_too_much("x")  # 90 of 160: more than 75
    assert not flying.is_too_much("y")
    flying.leave("x", second)
    flying.leave("x", second)
    assert not flying.is_too_much("x")


def test_a_client_whose_address_has_too_much_in_flight_is_disconnected(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(in_flight, "MAX_OF_ADDRESS", 8 << 20)
    with served.imported() as (sock, device):
        with contextlib.suppress(OSError):
            for number in range(12):
                sock.sendall(submit(2 + number, 1 << 20))
        wait_until("the device is free again", served.is_free)
        assert not device.alive
    assert any("too many bytes in flight" in text for text in caplog.messages)


def test_what_a_client_had_in_flight_once_it_may_not_have_again_unasked(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with served.imported() as (sock, device):
        for number in range(6):
            sock.sendall(submit(2 + number, 1 << 20))
        device.wait_for(6)
        for number in range(6):
            device.complete(number)
            assert reply(sock)[1] == 2 + number
        monkeypatch.setattr(in_flight, "MAX_OF_ADDRESS", 2 << 20)
        sock.sendall(submit(10, 4))  # by which it is noticed that less is pending
        device.wait_for(7)
        assert device.alive
        with contextlib.suppress(OSError):
            for number in range(5):
                sock.sendall(submit(11 + number, 1 << 20))
        wait_until("the device is free again", served.is_free)
    assert any("too many bytes in flight" in text for text in caplog.messages)


# -- the end


def test_an_answer_that_is_cut_by_the_end_of_the_server_is_reset() -> None:
    cut: list[CuttingTransport] = []

    def wrap(transport: Transport) -> Transport:
        cut.append(CuttingTransport(transport))
        return cut[-1]

    served = Served(wrap=wrap, carrier="plain")
    with contextlib.closing(served.server), served.connected() as sock:
        cut[0].arm(100)
        sock.sendall(REQ_DEVLIST)
        assert len(read_exactly(sock, 100)) == 100
        closing = threading.Thread(target=served.server.close)
        closing.start()
        with pytest.raises(ConnectionResetError):
            read_exactly(sock, 1 << 20)
        closing.join(20)
        assert not closing.is_alive()


def test_a_device_that_hangs_does_not_hold_up_the_end_of_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter, "_CLOSING_TIMEOUT", 0.3)
    hanging = threading.Event()

    class HangingDevice(DemoDevice):
        def close(self) -> None:
            hanging.wait(60)
            super().close()

    server = Server()
    server.add(demo.INFO, HangingDevice)
    address = server.listen("127.0.0.1", 0)
    with connect(address, HONEST) as sock:
        sock.sendall(REQ_IMPORT)
        read_exactly(sock, 320)
        server.close()
        assert not hanging.is_set()
    assert any("1-1 cannot be closed in time" in text for text in caplog.messages)
    hanging.set()
    wait_until("its thread ends", lambda: not [t for t in threading.enumerate() if t.name == "usbip-connection"])


@contextlib.contextmanager
def forked() -> Iterator[int]:
    """A child process that does nothing more, until the end of the block."""
    ours, theirs = socket.socketpair()
    with ours:
        pid = os.fork()
        if not pid:
            ours.close()
            theirs.sendall(b"x")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        assert ours.recv(1) == b"x"  # what is to be done in a child is done
        yield pid
    os.waitpid(pid, 0)


def test_a_forked_child_holds_no_port_and_no_connection_open(served: Served) -> None:
    relay = Relay(ServerAddress(*served.address), port=0)
    with (
        served.connected() as waiting,
        served.imported() as (user, _),
        connect(("127.0.0.1", relay.port), HONEST) as by,
    ):
        wait_until("they are there", lambda: len(served.server.clients) == 3 and relay.clients)
        with forked():
            relay.close()
            assert is_broken(by)
            served.server.close()
            for sock in (waiting, user):
                assert is_broken(sock)
            for port in (served.address[1], relay.port):
                listen("127.0.0.1", port).close()  # it is free
                with pytest.raises(ConnectionRefusedError):
                    connect(("127.0.0.1", port), HONEST)


@pytest.mark.parametrize("transport", [TCP, UDP])
def test_a_forked_child_holds_no_port_of_a_log_open(transport: str) -> None:
    collector = ListeningCollector(
        [ListenAddress(transport, "127.0.0.1", 0)], None, Delivery(lambda message: None, 7, False)
    )
    collector.start()
    (place,) = collector.bound
    with forked():
        collector.stop()
        kind = socket.SOCK_DGRAM if transport == UDP else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as again:
            again.bind(("127.0.0.1", place.port))


# -- the relay


@pytest.fixture
def between(served: Served, request: pytest.FixtureRequest) -> Iterator[Relay]:
    served.server.limits = Limits(connections_per_second=0)
    relay = Relay(ServerAddress(*served.address), port=0, limits=request.param)
    yield relay
    relay.close()


@pytest.fixture
def relayed(between: Relay) -> tuple[str, int]:
    return "127.0.0.1", between.port


@pytest.mark.parametrize("between", [Limits(max_clients=8, connections_per_second=0)], indirect=True)
def test_a_relay_gives_up_clients_of_the_flood_only(
    between: Relay, relayed: tuple[str, int], stack: contextlib.ExitStack
) -> None:
    honest = stack.enter_context(connect(relayed, HONEST))
    honest.sendall(REQ_DEVLIST[:3])
    for _ in range(30):
        with contextlib.suppress(ConnectionResetError):
            stack.enter_context(connect(relayed, FLOOD))
    wait_until("it is full", lambda: len(between.clients) == 8)
    assert listed(stack.enter_context(connect(relayed, HONEST))) == 1
    honest.sendall(REQ_DEVLIST[3:])
    assert len(read_exactly(honest, 12)) == 12


@pytest.mark.parametrize("between", [Limits(connections_per_second=1)], indirect=True)
def test_a_relay_refuses_who_connects_too_often(relayed: tuple[str, int], stack: contextlib.ExitStack) -> None:
    first = stack.enter_context(connect(relayed, FLOOD))
    for _ in range(30):
        with contextlib.suppress(ConnectionResetError), connect(relayed, FLOOD) as sock:
            is_broken(sock)
    assert listed(stack.enter_context(connect(relayed, HONEST))) == 1
    assert listed(first) == 1


@pytest.mark.parametrize("between", [Limits(max_clients_per_address=2)], indirect=True)
def test_a_relay_has_so_many_clients_of_an_address(relayed: tuple[str, int], stack: contextlib.ExitStack) -> None:
    held = [stack.enter_context(connect(relayed, FLOOD)) for _ in range(2)]
    with contextlib.suppress(ConnectionResetError), connect(relayed, FLOOD) as third:
        assert is_broken(third)
    assert [listed(sock) for sock in held] == [1, 1]
    assert listed(stack.enter_context(connect(relayed, HONEST))) == 1


def test_the_command_and_its_options(stack: contextlib.ExitStack) -> None:
    """`relay` has the options as `serve` has them; the server is the demo."""
    command = [sys.executable, "-m", "usbip_capture", "relay", "demo", "--listen", "127.0.0.1:0"]
    command += ["--max-clients-per-address", "1", "--connections-per-second", "1000", "--max-clients", "8"]
    process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    assert process.stderr is not None
    match = re.search(r"relaying 127\.0\.0\.1:(\d+) ", process.stderr.readline())
    assert match is not None
    address = ("127.0.0.1", int(match[1]))
    first = stack.enter_context(connect(address, FLOOD))
    with contextlib.suppress(ConnectionResetError), connect(address, FLOOD) as second:
        assert is_broken(second)
    assert listed(first) == listed(stack.enter_context(connect(address, HONEST))) == 1
