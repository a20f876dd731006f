"""Transfers through `ssh://` against `ssh -L` by hand: same client, same C server, same sshd, in one run.

Each round runs the plain connection, `ssh -L` and `ssh://` one after another, so that ratios hold while the machine's
speed drifts. The sshd is one of our own on loopback; OpenSSH's server and client are needed, and a C compiler. Its
sockets have TCP_NODELAY, which sshd itself sets for connections with a session only: without it both wait for an
acknowledgement, up to 40 ms, now and then, which is all that would be measured (`--delay`).

    python bench/ssh.py [--rounds 7] [--transfers 1000] [--delay]
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import usb.core
from device_latency import build
from pyusb_backend import BULK_SIZE, serving, timed

from usbip_capture import get_backend

#: What is measured, and how many for each control transfer.
KINDS = {"control": 1.0, "bulk in": 0.5, "bulk out": 0.5}
TARGET = 0.8
_SSHD = """\
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as sock:
            if not sock.connect_ex(("127.0.0.1", port)):
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on port {port}")
        time.sleep(0.01)


@contextmanager
def sshd(folder: Path, delay: bool) -> Iterator[int]:
    """A sshd, and an `ssh` in PATH that knows its keys; its port. delay: it may wait for acknowledgements."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    client = shutil.which("ssh")
    if program is None or client is None:
        raise SystemExit("OpenSSH's server and client are not both installed")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "config").write_text(_SSHD.format(folder=folder))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    if not os.geteuid():
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    (folder / "bin").mkdir()
    ssh = folder / "bin/ssh"
    options = f"-F none -oIdentityFile={folder}/user -oUserKnownHostsFile={folder}/known"
    ssh.write_text(f'#!/bin/sh\nexec {client} {options} "$@"\n')
    ssh.chmod(0o755)
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    threading.Thread(
        target=accept, args=(listener, [program, "-i", "-f", folder / "config"], delay), daemon=True
    ).start()
    yield port


def accept(listener: socket.socket, command: list[str | Path], delay: bool) -> None:
    while True:
        sock = listener.accept()[0]
        if not delay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        subprocess.Popen(command, stdin=sock.fileno(), stdout=sock.fileno(), stderr=subprocess.DEVNULL)
        sock.close()


def measure(address: str, transfers: int) -> dict[str, float]:
    """Median microseconds of each kind."""
    with get_backend(address, timeout=20) as backend:
        dev = usb.core.find(backend=backend)
        dev.set_configuration()
        buffer = array("B", bytes(BULK_SIZE))
        calls = {
            "control": lambda: dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18),
            "bulk in": lambda: dev.read(0x81, buffer),
            "bulk out": lambda: dev.write(0x01, buffer),
        }
        found = {
            kind: statistics.median(timed(call, max(int(transfers * KINDS[kind]), 1))) for kind, call in calls.items()
        }
        usb.util.dispose_resources(dev)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--transfers", type=int, default=1000)
    parser.add_argument("--delay", action="store_true", help="leave sshd as it is; fewer transfers then")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(serving(build(folder)))
        port = stack.enter_context(sshd(folder, args.delay))
        target, near = f"{getpass.getuser()}@127.0.0.1", free_port()
        by_hand = subprocess.Popen(
            ["ssh", "-N", "-oBatchMode=yes", "-oExitOnForwardFailure=yes", "-oServerAliveInterval=10",
             "-L", f"{near}:127.0.0.1:{server}", "-p", str(port), target], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(by_hand.wait)
        stack.callback(by_hand.terminate)
        wait_listening(near)
        places = {
            "plain": f"127.0.0.1:{server}", "ssh -L": f"127.0.0.1:{near}", "ssh://": f"ssh://{target}:{port}/{server}",
        }  # fmt: skip
        rounds = [{name: measure(place, args.transfers) for name, place in places.items()} for _ in range(args.rounds)]
    for kind in KINDS:
        shown = ", ".join(f"{name} {statistics.median(one[name][kind] for one in rounds):.0f}" for name in places)
        ratio = statistics.median(one["ssh -L"][kind] / one["ssh://"][kind] for one in rounds)
        print(f"{kind:8}  us: {shown};  speed of ssh:// by that of ssh -L: {ratio:.2f}   (target: {TARGET})")


if __name__ == "__main__":
    main()
