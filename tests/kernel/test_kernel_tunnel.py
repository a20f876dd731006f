"""Kernels as clients of servers behind ssh and TLS: through the tunnel, and by `attach`, where a program carries the
bytes of a socket that the kernel has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.served_by_tls import ServedByTls
from tests.kernel.conftest import Plug
from tests.kernel.rig import Guest, PythonGuest
from tests.kernel.rig.machine import HOST_ADDRESS
from tests.kernel.test_kernel_attach import Commands, attach, users
from tests.programs.sshd import Sshd, running_sshd
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, DemoServer
from usbip_capture.servers.address import ServerAddress
from usbip_capture.tunnel.service import Tunnel

pytestmark = pytest.mark.kernel

DISK_READY = "modprobe -a usb-storage sd_mod; until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done"
#: In the guest, which has no ssh: what `ssh -W HOST:PORT -- NAME` does, for the machine that runs the tests.
SSH = f"""\
#!/usr/bin/python3
import socket, sys, threading
def pump(source, target):
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
port = int(sys.argv[sys.argv.index("-W") + 1].rpartition(":")[2])
near, far = socket.socket(fileno=0), socket.create_connection(("{HOST_ADDRESS}", port))
threading.Thread(target=pump, args=(far, near), daemon=True).start()
pump(near, far)
"""


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    with running_sshd(tmp_path) as sshd:
        monkeypatch.setenv("PATH", sshd.path)
        yield sshd


def test_a_disk_of_usbipd_behind_ssh(guest: Guest, client: Guest, plug: Plug, disk: Path, sshd: Sshd) -> None:
    """Linux's usbip knows nothing of ssh: the tunnel is its server."""
    busid = plug("storage", "ehci", file=disk)
    server = ServerAddress.parse(f"{sshd.address}/{guest.usbip_port}")
    with closing(Tunnel(server, port=0)) as tunnel:
        local = client.attach(tunnel.port, busid)
        client.run(DISK_READY)
        read = client.run("dd if=/dev/sda bs=240k 2>/dev/null | md5sum").text.split()[0]
        assert read == hashlib.md5(disk.read_bytes()).hexdigest()
        pattern = bytes(range(256)) * 1024
        client.run("dd of=/dev/sda bs=64k seek=2 conv=fsync 2>/dev/null", stdin=pattern)
        client.detach(local)
        guest.wait_available(busid)
        assert disk.read_bytes()[128 << 10 :][: len(pattern)] == pattern

        local = client.attach(tunnel.port, busid)
        client.run(DISK_READY)
    client.run(f"until [ ! -e /sys/bus/usb/devices/{local} ]; do usleep 20000; done")  # lost with the tunnel
    guest.wait_available(busid)


@pytest.fixture(scope="module")
def _with_ssh(borrower: PythonGuest) -> None:
    borrower.run("cat > /bin/ssh; chmod 755 /bin/ssh", stdin=SSH.encode())


@pytest.fixture
def command(borrower: PythonGuest, _with_ssh: None) -> Iterator[Commands]:
    command = Commands(borrower)
    yield command
    borrower.run("modprobe vhci-hcd")
    command("detach", "all")


def test_attach_by_ssh(command: Commands) -> None:
    """The kernel has one end of a socketpair, ssh the other, when `attach` has ended."""
    with closing(DemoServer()) as server:
        where = f"ssh://me@pi/{server.listen('127.0.0.1', 0)[1]}"
        local = attach(command, where, BUSID)
        assert users(server) == [BUSID]
        assert command.guest.run(f"cat /sys/bus/usb/devices/{local}/product").text == "Demo device\n"
        assert f"from {BUSID} of {where}\n" in command("attached")
        assert command("detach", BUSID) == f"{BUSID} of {where} is detached from port 0\n"
        wait_until("the server has its device again", lambda: not users(server))
        command.guest.run("while ps | grep -v grep | grep -q 'W 127.0.0.1'; do usleep 20000; done")  # ssh has ended


#: In the guest.
TRUST = (
    "import sys; from usbip_capture.tls.known_servers import KnownServer, remember; "
    "remember(sys.argv[1], int(sys.argv[2]), KnownServer(sys.argv[3]))"
)


def test_attach_by_tls(command: Commands) -> None:
    """The same with a tunnel of its own."""
    served = ServedByTls()
    with closing(served.server):
        where = f"tls://{HOST_ADDRESS}:{served.port}"
        assert "is not known yet" in command.failure("attach", where, BUSID)
        command.guest.python(TRUST, HOST_ADDRESS, str(served.port), served.context.fingerprint)
        local = attach(command, where, BUSID)
        assert served.users == [BUSID]
        assert command.guest.run(f"cat /sys/bus/usb/devices/{local}/product").text == "Demo device\n"
        assert f"from {BUSID} of {where}\n" in command("attached")
        command("detach", BUSID)
        wait_until("the server has its device again", lambda: not served.users)


def test_our_server_within_tls(borrower: PythonGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux's usbip, which knows nothing of TLS."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    served = ServedByTls()
    with closing(served.server), closing(Tunnel(ServerAddress.parse(served.where), port=0)) as tunnel:
        local = borrower.attach(tunnel.port, BUSID)
        assert served.users == [BUSID]
        assert borrower.run(f"cat /sys/bus/usb/devices/{local}/product").text == "Demo device\n"
        borrower.detach(local)
        wait_until("the server has its device again", lambda: not served.users)
