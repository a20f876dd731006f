"""`usbip-capture tunnel`: clients that know neither TLS nor ssh use a server behind it as if it were here."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.programs.commands import command_environment, run_line
from tests.programs.sshd import free_port, running_sshd
from tests.waiting import wait_until
from usbip_capture.access.limits import Limits
from usbip_capture.demo.device import BUSID, INFO, DemoDevice, DemoServer
from usbip_capture.errors import CannotListen, ImportRefused, LocalProtocolError, UsbipError
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.net import ssh
from usbip_capture.net.networks import parse_networks
from usbip_capture.net.transport import SocketTransport
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tunnel.forwarding import Forwarding
from usbip_capture.tunnel.service import Tunnel

ALONE = Selector(busid=BUSID)


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with closing(DemoServer()) as server:
        yield server


@pytest.fixture
def far(server: DemoServer) -> ServerAddress:
    return ServerAddress("127.0.0.1", server.listen("127.0.0.1", 0)[1])


@pytest.fixture
def tunnel(far: ServerAddress) -> Iterator[Tunnel]:
    with closing(Tunnel(far, port=0)) as tunnel:
        yield tunnel
    assert not tunnel.clients


def near(tunnel: Tunnel) -> ServerAddress:
    return ServerAddress("127.0.0.1", tunnel.port)


def users(server: DemoServer) -> list[str]:
    return [client.busid for client in server.clients if client.busid]


def test_a_device_is_used_and_free_again(server: DemoServer, tunnel: Tunnel) -> None:
    assert [info.busid for info in near(tunnel).devices()] == [BUSID]
    with closing(near(tunnel).import_device(ALONE)) as device:
        assert DeviceHandle(device).device_descriptor().idVendor == 0x1209
        assert users(server) == [BUSID]
        with pytest.raises(ImportRefused):
            near(tunnel).import_device(ALONE)
    wait_until("the device is free", lambda: not users(server))
    wait_until("the tunnel has nobody", lambda: not tunnel.clients)


def test_the_end_of_either_side_is_that_of_the_other(server: DemoServer, tunnel: Tunnel) -> None:
    with closing(near(tunnel).import_device(ALONE)) as device:
        lost: list[str] = []
        device.watch(lost.append)
        server.remove(BUSID)
        wait_until("the client notices", lambda: lost)
    server.add(INFO, DemoDevice)
    device = near(tunnel).import_device(ALONE)
    with closing(device):
        device.watch(lost.append)
        tunnel.close()
        wait_until("it is lost with the tunnel", lambda: len(lost) == 2)
    wait_until("the device is free", lambda: not users(server))


def test_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    with closing(Tunnel(ServerAddress("127.0.0.1", free_port(), 1.0), port=0)) as tunnel:
        with pytest.raises(UsbipError):
            near(tunnel).devices()
        wait_until("it is logged", lambda: "nothing listens on 127.0.0.1 port" in caplog.text)


def test_who_may_connect(far: ServerAddress) -> None:
    with pytest.raises(LocalProtocolError, match="--allow"):
        Tunnel(far, "0.0.0.0", 0)
    with pytest.raises(LocalProtocolError, match="this machine itself"):
        Tunnel(ServerAddress("local"))
    with closing(Tunnel(far, "0.0.0.0", 0, allow=parse_networks("192.0.2.0/24"))) as tunnel:
        assert near(tunnel).devices()
        with pytest.raises(CannotListen, match="the port is in use"):
            Tunnel(far, port=tunnel.port)


def test_how_many_may_connect(far: ServerAddress) -> None:
    with closing(Tunnel(far, port=0, limits=Limits(max_clients=1))) as tunnel:
        with closing(near(tunnel).import_device(ALONE)), pytest.raises(UsbipError):
            near(tunnel).devices()
        wait_until("it has left", lambda: not tunnel.clients)
        assert near(tunnel).devices()
    with ExitStack() as stack:
        tunnel = stack.enter_context(closing(Tunnel(far, port=0, limits=Limits(max_clients_per_address=1))))
        stack.enter_context(closing(near(tunnel).import_device(ALONE)))
        with pytest.raises(UsbipError):
            near(tunnel).devices()


def connected_from(address: str, tunnel: Tunnel) -> socket.socket:
    return socket.create_connection(("127.0.0.1", tunnel.port), 30, (address, 0))


@pytest.mark.skipif(sys.platform == "darwin", reason="has no 127.0.0.2")
def test_one_address_does_not_keep_the_others_out(server: DemoServer, far: ServerAddress) -> None:
    """Those of it that have imported nothing go for them; who has a device stays."""
    with closing(Tunnel(far, port=0, limits=Limits(max_clients=5))) as tunnel, ExitStack() as stack:
        device = stack.enter_context(closing(near(tunnel).import_device(ALONE)))
        lost: list[str] = []
        device.watch(lost.append)
        idle = [stack.enter_context(connected_from("127.0.0.1", tunnel)) for _ in range(4)]
        wait_until("it is full", lambda: tunnel.clients == 5)
        for _ in range(2):
            other = stack.enter_context(connected_from("127.0.0.2", tunnel))
            other.sendall(REQUEST)
            assert other.recv(8, socket.MSG_WAITALL) == b"\x01\x11\0\x05\0\0\0\0"
        with suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        assert not lost
        assert DeviceHandle(device).device_descriptor().idVendor == 0x1209


@contextmanager
def forwarded() -> Iterator[tuple[socket.socket, socket.socket, list[OSError], threading.Thread]]:
    with ExitStack() as stack:
        (client, for_client), (server, for_server) = (tcp_pair(), tcp_pair())
        for sock in (client, server):
            stack.enter_context(sock).settimeout(30)
        broken: list[OSError] = []
        ends = SocketTransport(for_client, "client"), SocketTransport(for_server, "server")
        thread = threading.Thread(target=Forwarding(*ends, broken.append).run)
        thread.start()
        yield client, server, broken, thread
        thread.join(30)
        assert not thread.is_alive()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def test_an_end_is_an_end_and_a_reset_is_a_reset() -> None:
    with forwarded() as (client, server, broken, _):
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100, socket.MSG_WAITALL) == b"request"
        server.sendall(b"answer")
        server.close()
        assert client.recv(100, socket.MSG_WAITALL) == b"answer"
    assert broken == []
    with forwarded() as (client, server, broken, _):
        client.sendall(b"1")
        assert server.recv(1) == b"1"
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(broken) == 1


def test_who_is_stopped_sees_a_reset() -> None:
    """And no end, which would be taken for the end of what was sent."""
    with ExitStack() as stack:
        (client, for_client), (server, for_server) = (tcp_pair(), tcp_pair())
        for sock in (client, server):
            stack.enter_context(sock).settimeout(30)
        broken: list[OSError] = []
        forwarding = Forwarding(
            SocketTransport(for_client, "client"), SocketTransport(for_server, "server"), broken.append
        )
        thread = threading.Thread(target=forwarding.run)
        thread.start()
        client.sendall(b"1")
        assert server.recv(1) == b"1"
        forwarding.stop()
        for sock in (client, server):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        thread.join(30)
        assert not thread.is_alive()
    assert broken == []


def test_much_both_ways_at_once() -> None:
    data = os.urandom(8 << 20)
    with forwarded() as (client, server, _, _):
        got: dict[int, bytes] = {}

        def receive(sock: socket.socket) -> None:
            received = bytearray()
            while piece := sock.recv(1 << 20):
                received += piece
            got[id(sock)] = bytes(received)

        def send(sock: socket.socket) -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        threads = [threading.Thread(target=each, args=[sock]) for each in (send, receive) for sock in (client, server)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [received == data for received in got.values()] == [True, True]


# -- the command


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """It listens: its process, and the port."""
    with subprocess.Popen(
        ["usbip-capture", "tunnel", *arguments, "--listen", "127.0.0.1:0"],
        env=command_environment(folder), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            port = re.search(r"^usbip-capture: 127\.0\.0\.1:(\d+) is \S+ now; attach with: usbip --tcp-port \1 ", line)
            assert port, line + process.stderr.read()
            yield process, int(port[1])
        finally:
            process.kill()


def test_the_command(server: DemoServer, far: ServerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", command_environment(tmp_path)["PATH"])
    with command(tmp_path, str(far)) as (process, port):
        with closing(ServerAddress("127.0.0.1", port).import_device(ALONE)):
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        wait_until("the device is free", lambda: not users(server))


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("tunnel", 2, "no server given"),
        ("tunnel 127.0.0.1 --stdio --listen 3240", 2, "neither --listen nor --allow"),
        ("tunnel ssh://-oX", 2, "is not an address"),
        ("tunnel 127.0.0.1:{free} --listen 127.0.0.1:0", 1, "nothing listens on 127.0.0.1"),
        ("tunnel 127.0.0.1:{free} --stdio", 1, "nothing listens on 127.0.0.1"),
        ("tunnel 127.0.0.1 --listen 0.0.0.0:0", 2, "--allow"),
        ("tunnel local", 2, "this machine itself"),
    ],
)
def test_what_cannot_be(line: str, code: int, sentence: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture {line.format(free=free_port())} </dev/null", tmp_path)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert (done.returncode == 2) == (code == 2)
    assert done.returncode


REQUEST = b"\x01\x11\x80\x05\0\0\0\0"


@pytest.mark.parametrize("kind", ["pipes", "socket"])
def test_standard_streams(kind: str, far: ServerAddress, tmp_path: Path) -> None:
    program = [sys.executable, "-W", "error", "-m", "usbip_capture", "tunnel", str(far), "--stdio"]
    environment = command_environment(tmp_path)
    if kind == "pipes":
        done = subprocess.run(program, env=environment, input=REQUEST, capture_output=True, check=True, timeout=60)
        answer, errors = done.stdout, done.stderr
    else:
        ours, theirs = socket.socketpair()
        with (
            ours,
            subprocess.Popen(
                program, env=environment, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE
            ) as child,
        ):
            theirs.close()
            ours.sendall(REQUEST)
            ours.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: ours.recv(1 << 16), b""))
            errors = child.communicate(timeout=60)[1]
    assert answer.startswith(b"\x01\x11\0\x05\0\0\0\0\0\0\0\1/sys/devices/simulated/1-1")
    assert errors == b""


def test_a_server_behind_ssh(
    server: DemoServer, far: ServerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_has_terminal", lambda: False)
    with running_sshd(tmp_path) as sshd:
        environment = command_environment(tmp_path)
        monkeypatch.setenv("PATH", os.pathsep.join([str(sshd.programs), environment["PATH"]]))
        with command(tmp_path, f"{sshd.address}/{far.port}") as (_, port):
            with closing(ServerAddress("127.0.0.1", port).import_device(ALONE)) as device:
                assert DeviceHandle(device).device_descriptor().idVendor == 0x1209
                assert users(server) == [BUSID]
            wait_until("the device is free", lambda: not users(server))
            sshd.allow("")
            with pytest.raises(UsbipError):
                ServerAddress("127.0.0.1", port).devices()
