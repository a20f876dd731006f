"""`usbip-capture serve` as systemd runs it, and commands for it, each a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.commands import run_line
from tests.programs.simulated_machine import BUSID, Machine, environment
from tests.waiting import wait_until
from usbip_capture.cli.exits import NOT_RUNNING
from usbip_capture.device import Device
from usbip_capture.servers.address import Selector, ServerAddress

CODE = "from usbip_capture.cli.main import main; import sys; sys.exit(main())"


class Service:
    """The server, and what its manager hears of it. where: its address, once it is ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.settimeout(30)
        self.machine = Machine(folder)
        self.runtime = {"XDG_RUNTIME_DIR": str(folder / "run")}
        more = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "400000", **self.runtime}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CODE, "serve", "--listen=127.0.0.1:0", "--name=rack", *arguments],
            cwd=folder, env=environment(folder, **more), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            for line in self.process.stderr:
                self.said += line

    def heard(self, wanted: str) -> str:
        """The first notification from now on that has this."""
        while True:
            state = self._manager.recv(4096).decode()
            if wanted in state:
                return state

    def command(self, line: str) -> subprocess.CompletedProcess[str]:
        return run_line(f"usbip-capture {line}", self._folder, **self.runtime)

    def attach(self) -> Device:
        (address,) = json.loads(self.command("status --json").stdout)["addresses"]
        return ServerAddress.parse(address, timeout=30.0).import_device(Selector(BUSID))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        self._manager.close()
        self.machine.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path, "--device", BUSID)
    yield made
    made.close()


def test_it_is_ready_when_it_listens_alive_while_it_runs_and_stops_in_order(service: Service) -> None:
    service.heard("READY=1")
    device = service.attach()
    service.heard("STATUS=1 device, 1 in use")
    device.close()
    service.heard("WATCHDOG=1")
    service.process.send_signal(signal.SIGTERM)
    service.heard("STOPPING=1")
    assert service.process.wait(30) == 0
    assert "('close',)" in service.machine.calls


def test_commands_for_it(service: Service) -> None:
    service.heard("READY=1")
    assert service.command("clients").stderr == "usbip-capture: nobody is connected\n"
    device = service.attach()
    lost = threading.Event()
    device.watch(lambda reason: lost.set())
    try:
        (client,) = json.loads(service.command("clients --json").stdout)
        assert client["busid"] == BUSID
        done = service.command(f"reset {BUSID}")
        assert (done.returncode, done.stdout) == (0, f"{BUSID} was reset\n"), done.stderr
        assert device.alive
        done = service.command(f"power {BUSID} off")
        assert "there is no hub 1-9" in done.stderr  # nothing is behind a hub on this machine
        assert service.command(f"kick {BUSID}").returncode == 0
        assert lost.wait(30)
    finally:
        device.close()
    wait_until("it is free", lambda: service.command("clients --json").stdout.strip() == "[]")
    done = service.command(f"reset {BUSID}")  # nobody has it now
    assert (done.returncode, done.stdout) == (0, f"{BUSID} was reset\n"), done.stderr
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 0
    assert service.machine.calls.count("('reset',)") >= 2


def test_a_killed_one_leaves_no_trap(service: Service, tmp_path: Path) -> None:
    service.heard("READY=1")
    assert service.command("status").returncode == 0
    service.process.kill()
    service.process.wait(30)
    assert service.command("status").returncode == NOT_RUNNING
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "run").symlink_to(tmp_path / "run")
    again = Service(tmp_path / "next", "--device", BUSID)
    try:
        again.heard("READY=1")
        assert again.command("status").stdout.startswith(f"rack (process {again.process.pid}) at 127.0.0.1:")
    finally:
        again.close()


def test_rules_follow_the_configuration(tmp_path: Path) -> None:
    assert run_line("usbip-capture unbind class:03", tmp_path).returncode == 0
    done = run_line("usbip-capture bind 1209:ffff", tmp_path, XDG_RUNTIME_DIR=str(tmp_path / "run"))
    assert "no server of yours is running" in done.stdout
    service = Service(tmp_path)
    try:
        service.heard("READY=1")
        done = service.command(f"bind {BUSID}")
        assert done.stdout.splitlines()[-1].startswith(f"the server rack exports now: {BUSID}"), done.stderr
        service.attach().close()
        done = service.command(f"unbind {BUSID}")
        assert done.stdout.splitlines()[-1] == "the server rack exports now: nothing that is plugged in"
    finally:
        service.close()
