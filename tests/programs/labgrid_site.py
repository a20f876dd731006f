"""A lab on loopback: labgrid's coordinator and client as they are, and exporters of ours with simulated devices."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path

from tests.programs.commands import ROOT, command_environment
from tests.programs.simulated_machine import Machine, environment
from tests.waiting import wait_until

#: Of one call of the client, and of what it is to bring about, in seconds.
PATIENCE = 60.0
_MAIN = "import sys; from {module} import main; sys.exit(main())"


def program(module: str) -> list[str]:
    """A program of labgrid, by its module."""
    return [sys.executable, "-c", _MAIN.format(module=module)]


class Program:
    """One that runs, and what it has printed."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> None:
        """Until it has printed something that matches."""

        def look() -> bool:
            if re.search(pattern, self.printed):
                return True
            assert self.process.poll() is None, self.printed
            return False

        wait_until(f"{pattern} of {self.log.name}", look, PATIENCE)

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


class Exporter:
    """`usbip-capture labgrid-exporter` on a machine of its own, in `folder`, with this configuration."""

    def __init__(self, site: Site, name: str, configuration: str, *options: str) -> None:
        self.folder = site.folder / f"{name}-{next(site.numbers)}"
        self.folder.mkdir()
        self._site, self._name, self._options = site, name, options
        self.machine = Machine(self.folder)
        (self.folder / "exporter.yaml").write_text(configuration)
        self.program = self._started()

    def _started(self) -> Program:
        # Not with warnings as errors: labgrid leaves an event loop open.
        command = [sys.executable, "-m", "usbip_capture.cli.main", "labgrid-exporter", "--name", self._name]
        options = ["--hostname", "127.0.0.1", *self._options, "exporter.yaml"]
        settings = environment(self.folder, LG_COORDINATOR=self._site.coordinator)
        return Program([*command, *options], self.folder, settings, self.folder / "exporter.log")

    def wait_until_ready(self) -> Exporter:
        self.program.wait_for("creating poll task")
        return self

    def start_again(self) -> None:
        """After it was ended."""
        self.program = self._started()

    def close(self) -> None:
        self.program.end(signal.SIGKILL)
        self.machine.close()


class Clients:
    """A process in which `labgrid-client` runs, one call at a time."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.programs.labgrid_clients"],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, user: str, *arguments: str) -> tuple[int, str]:
        """The exit code, and what it has printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps({'user': user, 'arguments': arguments})}\n")
        self._process.stdin.flush()
        code, printed = json.loads(self._process.stdout.readline())
        return code, printed

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Site:
    """The lab, in `folder`, until `close`. coordinator: its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        self.exporters: list[Exporter] = []
        self.numbers = count()
        self.start_coordinator()
        self._clients = self.clients()

    def start_coordinator(self) -> None:
        folder = self.folder / "coordinator"
        folder.mkdir(exist_ok=True)
        command = [*program("labgrid.remote.coordinator"), "-l", self.coordinator]
        self._coordinator = Program(command, folder, self.environment(), folder / "coordinator.log")
        self._coordinator.wait_for("Coordinator ready")

    def end_coordinator(self, number: int = signal.SIGKILL) -> None:
        self._coordinator.end(number)

    def environment(self, user: str = "ann", **more: str) -> dict[str, str]:
        """Of a client: a person at a machine of the lab."""
        home = self.folder / f"home-{user}"
        home.mkdir(exist_ok=True)
        search = str(ROOT)
        names = {"LG_COORDINATOR": self.coordinator, "LG_USERNAME": user, "LG_HOSTNAME": "pc", "PYTHONPATH": search}
        return {**command_environment(home), "XDG_RUNTIME_DIR": str(home), **names, **more}

    def exporter(self, name: str, configuration: str, *options: str) -> Exporter:
        """One that is ready."""
        self.exporters.append(Exporter(self, name, configuration, *options))
        return self.exporters[-1].wait_until_ready()

    def clients(self) -> Clients:
        """Further ones, for who asks at the same time. Close it."""
        return Clients(self.folder, self.environment())

    def client(self, *arguments: str, user: str = "ann", fails: bool = False) -> str:
        """What `labgrid-client` prints; it must end well, or fail."""
        code, printed = self._clients.run(user, *arguments)
        assert bool(code) == fails, printed
        return printed

    def place(self, name: str, *matches: str) -> None:
        """Make a place of the resources that match."""
        self.client("-p", name, "create")
        for match in matches:
            self.client("-p", name, "add-match", match)

    def port(self, exporter: str) -> int:
        """Where a device of the exporter is lent now; 0 if it is not."""
        shown = self.client("-v", "resources", f"{exporter}/*/NetworkUsbipDevice")
        found = re.search(r"'port': (\d+)", shown)
        return int(found[1]) if found else 0

    def run(self, *command: str, user: str = "ann", **more: str) -> subprocess.CompletedProcess[str]:
        """Python with these arguments, at the client."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder, env=self.environment(user, **more), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=4 * PATIENCE,
        )  # fmt: skip

    def clear(self) -> None:
        """As in the beginning: there is no exporter, and no place."""
        self._end_exporters()
        wait_until("nothing is exported", lambda: not self.client("resources").strip(), PATIENCE)
        for place in self.client("places").split():
            self._clients.run("ann", "-p", place, "release", "--kick")  # it fails if nobody has acquired it
            self.client("-p", place, "delete")

    def _end_exporters(self) -> None:
        for exporter in self.exporters:
            exporter.close()
        self.exporters.clear()

    def close(self) -> None:
        self._end_exporters()
        self._clients.close()
        self._coordinator.end(signal.SIGKILL)


def is_listening(port: int) -> bool:
    """Whether somebody can connect to this port of loopback."""
    with socket.socket() as probing:
        probing.settimeout(PATIENCE)
        return probing.connect_ex(("127.0.0.1", port)) == 0
