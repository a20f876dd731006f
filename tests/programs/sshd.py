"""A real sshd on the loopback interface, and a folder whose `ssh` knows its keys."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.waiting import wait_until
from usbip_capture.net import ssh

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


class Sshd:
    """port: where it listens. key: who may log in, a line for `authorized_keys`. options: ssh's own, to get there."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.key = (folder / "user.pub").read_text()
        self.known = f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
        options = {
            "IdentityFile": folder / "user",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": folder / "known",
            "GlobalKnownHostsFile": "none",
        }
        self.options = ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]
        self.allow(self.key)
        self.know(self.known)
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.install_options()

    @property
    def path(self) -> str:
        """PATH with this `ssh` in it."""
        return f"{self.programs}{os.pathsep}{os.environ['PATH']}"

    @property
    def address(self) -> str:
        """As ssh:// names it."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def install_options(self) -> None:
        """Have `ssh` be the real one, with `options`."""
        self.install(f'exec {shutil.which("ssh")} {shlex.join(self.options)} "$@"')

    def install(self, script: str) -> None:
        """Have `ssh` be this shell script."""
        program = self.programs / "ssh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def allow(self, line: str) -> None:
        """Who may log in, instead of `key`."""
        (self.folder / "authorized_keys").write_text(line)

    def know(self, lines: str) -> None:
        """The host keys that are known."""
        (self.folder / "known").write_text(lines)


@contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """Runs as the one who runs the tests; ends with what it forwards."""
    sshd = shutil.which("sshd", path=_PATH)
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's server and client are not both installed")
    if not os.geteuid():
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd does not start without it
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    config = folder / "sshd_config"
    config.write_text(_SSHD.format(folder=folder))
    port = free_port()
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(config), "-p", str(port)], stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            assert daemon.stderr is not None
            said = daemon.stderr.readline()
            assert "Server listening" in said, said + daemon.stderr.read()
            yield Sshd(folder, port)
        finally:
            daemon.terminate()


@contextmanager
def sshd_of_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """Its `ssh` is that of this process and of the programs that it runs; nothing of these is left at the end."""
    before = children()
    with running_sshd(folder) as sshd:
        monkeypatch.setenv("PATH", sshd.path)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setattr(ssh, "_has_terminal", lambda: False)
        daemons = children()
        yield sshd
        wait_until("all of ssh have ended, and were reaped", lambda: children() <= daemons, 30)
    assert children() <= before


def children() -> set[int]:
    """Processes of ours, those among them that have ended and that nobody has waited for."""
    found = set()
    for folder in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            found |= set(map(int, (folder / "children").read_text().split()))
    return found
