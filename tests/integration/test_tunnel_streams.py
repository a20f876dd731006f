"""`usbip-capture tunnel --stdio` on pipes: it ends with the server, although nobody ends its standard input."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.programs.commands import command_environment
from usbip_capture.net.transport import SocketTransport
from usbip_capture.tunnel.forwarding import Forwarding
from usbip_capture.tunnel.streams import pipes

LINGER = b"\1\0\0\0\0\0\0\0"


class Tunnel:
    """One connection between two pipes and a socket. Public: what those at its ends have."""

    def __init__(self, stack: ExitStack) -> None:
        reading, self.stdin = os.pipe()
        self.stdout, writing = os.pipe()
        for fd in (self.stdin, self.stdout):
            stack.callback(os.close, fd)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            self.server = stack.enter_context(listener.accept()[0])
        self.broken: list[OSError] = []
        forwarding = Forwarding(pipes(reading, writing), SocketTransport(ours, "server"), self.broken.append)
        self.stop = forwarding.stop
        self._thread = threading.Thread(target=forwarding.run, daemon=True)
        self._thread.start()

    def joined(self) -> bool:
        self._thread.join(20)
        return not self._thread.is_alive()


@pytest.fixture(params=["polled", "threads"])
def tunnel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tunnel]:
    if request.param == "threads":  # as on Windows
        monkeypatch.delattr(select, "poll")
    with ExitStack() as stack:
        made = Tunnel(stack)
        monkeypatch.undo()
        yield made


def reset(server: socket.socket) -> None:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    server.close()


@pytest.mark.parametrize(("ends", "is_broken"), [(socket.socket.close, False), (reset, True)])
def test_it_ends_with_the_server(tunnel: Tunnel, ends: Callable[[socket.socket], None], is_broken: bool) -> None:
    tunnel.server.sendall(b"the last")
    assert os.read(tunnel.stdout, 8) == b"the last"
    ends(tunnel.server)
    assert tunnel.joined()
    assert os.read(tunnel.stdout, 1) == b""
    assert len(tunnel.broken) == is_broken


def test_the_end_of_standard_input_is_one_way_only(tunnel: Tunnel) -> None:
    os.write(tunnel.stdin, b"request")
    os.dup2(os.open(os.devnull, os.O_WRONLY), tunnel.stdin)
    assert tunnel.server.recv(100, socket.MSG_WAITALL) == b"request"
    tunnel.server.sendall(b"answer")
    tunnel.server.close()
    assert tunnel.joined()
    assert os.read(tunnel.stdout, 100) == b"answer"
    assert tunnel.broken == []


def test_it_can_be_stopped(tunnel: Tunnel) -> None:
    tunnel.stop()
    assert tunnel.joined()
    tunnel.stop()
    assert tunnel.broken == []


@pytest.mark.skipif(not hasattr(select, "poll"), reason="who writes to a pipe cannot be woken")
def test_it_can_be_stopped_while_nobody_reads() -> None:
    with ExitStack() as stack:
        tunnel = Tunnel(stack)
        tunnel.server.setblocking(False)
        poller = select.poll()
        poller.register(tunnel.server, select.POLLOUT)
        while poller.poll(1000):  # until all that lies between is full
            tunnel.server.send(bytes(1 << 16))
        tunnel.stop()
        assert tunnel.joined()


@pytest.mark.parametrize(
    ("ends", "code", "sentence"), [(socket.socket.close, 0, ""), (reset, 1, "Connection reset by peer")]
)
def test_the_command(ends: Callable[[socket.socket], None], code: int, sentence: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        program = [sys.executable, "-W", "error", "-m", "usbip_capture", "tunnel"]
        with subprocess.Popen(
            [*program, f"127.0.0.1:{listener.getsockname()[1]}", "--stdio"], env=command_environment(tmp_path),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as child:  # fmt: skip
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            try:
                server = listener.accept()[0]
                server.sendall(b"here")
                assert child.stdout.read(4) == b"here"
                ends(server)
                assert child.wait(20) == code
                assert child.stdout.read() == b""
                errors = child.stderr.read().decode()
                assert sentence in errors
                assert bool(errors) == bool(sentence)
            finally:
                child.kill()
