"""The recipes of docs/ssh.md, with a real sshd on the loopback interface: the device of a server that listens on
loopback only is used on the other machine, and is free again when the tunnel ends."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.programs.commands import ROOT, run_line
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, DemoServer
from usbip_capture.errors import UsbipError
from usbip_capture.servers.address import Selector, ServerAddress

PAGE = (ROOT / "docs/ssh.md").read_text()
RECIPES = re.findall(r"^\$ (ssh .*)$", PAGE, re.MULTILINE)
#: What a key may do, for each way.
RESTRICTIONS = {way: options for options, way in re.findall(r"`(restrict,\S*)` for `(-[LR])`", PAGE)}
_SSHD = """\
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
"""
_PATH = f"{os.environ['PATH']}:/usr/sbin"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", port))


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with closing(DemoServer()) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Iterator[list[str]]:
    """The options with which ssh logs into a sshd of our own, as the one who runs the tests."""
    sshd, ssh = (shutil.which(name, path=_PATH) for name in ("sshd", "ssh"))
    if sshd is None or ssh is None:
        pytest.skip("OpenSSH's server and client are not both installed")
    if not os.geteuid():
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd does not start without it
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    config = tmp_path / "sshd_config"
    config.write_text(_SSHD.format(folder=tmp_path))
    port = free_port()
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(config), "-p", str(port)], stderr=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stderr is not None
        said = daemon.stderr.readline()
        assert "Server listening" in said, said + daemon.stderr.read()
        known = f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}"
        (tmp_path / "known").write_text(known)
        options = {
            "Port": port,
            "IdentityFile": tmp_path / "user",
            "UserKnownHostsFile": tmp_path / "known",
            "User": getpass.getuser(),
            "HostName": "127.0.0.1",
            "BatchMode": "yes",
        }
        yield ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]
        daemon.terminate()


Tunnel = Callable[[str, int, int], "subprocess.Popen[bytes]"]


@pytest.fixture
def tunnel(target: list[str], tmp_path: Path) -> Iterator[Tunnel]:
    """Open the tunnel that a recipe says, from a port of this machine to the server's."""

    def open_tunnel(way: str, port: int, server_port: int) -> subprocess.Popen[bytes]:
        (recipe,) = [line.split() for line in RECIPES if f" {way} " in line]
        forward = recipe.index(way) + 1
        assert recipe[forward] == "3240:127.0.0.1:3240"
        recipe[forward] = f"{port}:127.0.0.1:{server_port}"
        key = (tmp_path / "user.pub").read_text()
        allowed = RESTRICTIONS[way].replace("3240", str(server_port if way == "-L" else port))
        (tmp_path / "authorized_keys").write_text(f"{allowed} {key}")
        process = stack.enter_context(subprocess.Popen([recipe[0], *target, *recipe[1:]], stdin=subprocess.DEVNULL))
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
