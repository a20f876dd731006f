"""The recipes of docs/ssh.md, with a real sshd on the loopback interface: the device of a server that listens on
loopback only is used on the other machine, and is free again when the tunnel ends."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.programs.commands import ROOT, run_line
from tests.programs.sshd import Sshd, free_port, running_sshd
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, DemoServer
from usbip_capture.errors import UsbipError
from usbip_capture.servers.address import Selector, ServerAddress

PAGE = (ROOT / "docs/ssh.md").read_text()
RECIPES = re.findall(r"^\$ (ssh .*)$", PAGE, re.MULTILINE)
#: What a key may do, for each way.
RESTRICTIONS = {way: options for options, way in re.findall(r"`(restrict,\S*)` for `(-[LR])`", PAGE)}


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", port))


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with closing(DemoServer()) as server:
        yield server


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path) as sshd:
        yield sshd


Tunnel = Callable[[str, int, int], "subprocess.Popen[bytes]"]


@pytest.fixture
def tunnel(sshd: Sshd) -> Iterator[Tunnel]:
    """Open the tunnel that a recipe says, from a port of this machine to the server's."""

    def open_tunnel(way: str, port: int, server_port: int) -> subprocess.Popen[bytes]:
        (recipe,) = [line.split() for line in RECIPES if f" {way} " in line]
        forward = recipe.index(way) + 1
        assert recipe[forward] == "3240:127.0.0.1:3240"
        recipe[forward] = f"{port}:127.0.0.1:{server_port}"
        allowed = RESTRICTIONS[way].replace("3240", str(server_port if way == "-L" else port))
        sshd.allow(f"{allowed} {sshd.key}")
        options = [
            *sshd.options,
            *(f"-o{option}" for option in (f"Port={sshd.port}", "HostName=127.0.0.1", "BatchMode=yes")),
        ]
        process = stack.enter_context(subprocess.Popen([recipe[0], *options, *recipe[1:]], stdin=subprocess.DEVNULL))
        stack.callback(process.kill)
        wait_until("the tunnel is open", lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None
        return process

    with ExitStack() as stack:
        yield open_tunnel


def users(server: DemoServer) -> list[str]:
    return [client.busid for client in server.clients if client.busid]


@pytest.mark.parametrize("way", ["-R", "-L"])
def test_a_device_is_used_through_it(way: str, server: DemoServer, tunnel: Tunnel, tmp_path: Path) -> None:
    _, server_port = server.listen("127.0.0.1", 0)
    port = free_port()
    process = tunnel(way, port, server_port)
    listed = run_line(f"usbip-capture list 127.0.0.1:{port}", tmp_path)
    assert f"{BUSID}  1209:0001" in listed.stdout, listed.stderr
    probed = run_line(f"usbip-capture probe 127.0.0.1:{port} {BUSID} --pcap probe.pcapng", tmp_path)
    assert "serial number  DEMO0001" in probed.stdout, probed.stderr
    assert (tmp_path / "probe.pcapng").stat().st_size > 1000

    device = ServerAddress("127.0.0.1", port).import_device(Selector(busid=BUSID))
    with closing(device):
        wait_until("the server has this client", lambda: users(server) == [BUSID])
        lost: list[str] = []
        device.watch(lost.append)
        process.kill()
        wait_until("the client notices that the tunnel ended", lambda: lost)
        wait_until("the device is free again", lambda: not users(server))
    with pytest.raises(UsbipError):
        ServerAddress("127.0.0.1", port).devices()


def test_the_recipes_are_those_of_the_page() -> None:
    assert len(RECIPES) == 2
    for recipe in RECIPES:
        assert {"-N", "ExitOnForwardFailure=yes", "ServerAliveInterval=10"} <= set(recipe.split())
