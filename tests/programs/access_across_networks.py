"""A real server and clients of other machines: who may have what, by rules and leases of addresses, IPv4 and IPv6.

Run in a network namespace of its own (`unshare -rn`), where it makes another one for the clients. Prints as JSON what
each client got after each step. Argument: an empty folder.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import IO

from tests.fakes.raw_client import RawClient
from tests.programs.other_machine import other_machine
from tests.programs.simulated_machine import BUSID, Machine, environment
from tests.waiting import wait_until
from usbip_capture.devices.devlist import list_devices
from usbip_capture.errors import UsbipError
from usbip_capture.net.transport import SocketTransport

OTHER, OTHER_PORT = "1-9.8", "9.8"
PORT = 3240
CLIENTS = ("10.213.0.2", "10.213.0.3", "fd00:213::2", "fd00:213::3")
SERVER = {4: "10.213.0.1", 6: "fd00:213::1"}
CODE = "from usbip_capture.cli.main import main; import sys; sys.exit(main())"
RULES = """\
[server]
exports = ["all"]
rules = ["allow 10.213.0.2", "allow fd00:213::2/128"]
"""


def server_of(client: str) -> tuple[str, int]:
    return SERVER[6 if ":" in client else 4], PORT


def seen(client: str) -> list[str]:
    """The devices in its list. Raises OSError, UsbipError."""
    with socket.create_connection(server_of(client), 20, (client, 0)) as sock:
        return [info.busid for info in list_devices(SocketTransport(sock.dup(), client), 20)]


def may_connect(client: str) -> bool:
    try:
        seen(client)
    except (UsbipError, OSError):
        return False
    return True


def got(client: str) -> str:
    """The devices that a client of this address sees, and the answers to its imports."""
    try:
        listed = seen(client)
    except (UsbipError, OSError):
        return "closed"
    answers = []
    for busid in (BUSID, OTHER):
        with RawClient(server_of(client), busid, source=client) as found:
            answers.append(found.status)
        if not answers[-1]:
            wait_until("it is released", partial(_is_seen, client, busid), 30)
    return f"sees {','.join(listed)}; {answers[0]} {answers[1]}"


def _is_seen(client: str, busid: str) -> bool:
    return busid in seen(client)


def client() -> None:
    """In the clients' namespace. Each line of the input: what each address gets, or a device to be held by one."""
    held: list[RawClient] = []
    for line in sys.stdin:
        command, *words = line.split()
        answer: object = None
        if command == "get":
            answer = {address: got(address) for address in CLIENTS}
        elif command == "hold":
            held.append(RawClient(server_of(words[0]), words[1], source=words[0]))
            answer = held[-1].ask("8006000100001200").status
        elif command == "try":
            answer = may_connect(words[0])
        else:
            answer = [one.is_at_end() for one in held]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Steps:
    """found: by the name of each step."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.found: dict[str, object] = {}
        self._environment = environment(folder)
        self._process = process

    def ask(self, line: str) -> object:
        """One of the clients' machine."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def access(self, *words: str) -> None:
        """The command, and what each client gets after it."""
        self.command("access", *words)
        self.get(" ".join(words))

    def command(self, *words: str) -> None:
        """One for the server that runs."""
        command = [sys.executable, "-W", "error", "-c", CODE, *words]
        ran = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr

    def get(self, step: str) -> None:
        self.found[step] = self.ask("get")


def take(folder: Path, steps: Steps) -> None:
    steps.get("start")
    steps.found["own address"] = got(SERVER[4]), got(SERVER[6])
    steps.access("deny", "10.213.0.2", BUSID)
    steps.access("deny", "fd00:213::/64", "1209:0002")
    steps.access("open")
    reserve(steps)
    assert steps.ask(f"hold 10.213.0.3 {OTHER}") == 0
    assert steps.ask(f"hold fd00:213::3 {BUSID}") == 0
    steps.access("close")
    steps.found["held"] = steps.ask("ends")
    (folder / "config/usbip-capture/config.toml").write_text('[server]\nrules = ["allow ::/0"]\nexports = ["all"]\n')

    wait_until("the file is followed", lambda: steps.ask("try fd00:213::3"), 30)
    steps.get("by hand")


def reserve(steps: Steps) -> None:
    """Both devices for one client each, the other has the first of them before."""
    assert steps.ask(f"hold fd00:213::3 {BUSID}") == 0
    steps.command("reserve", BUSID, "--for", "1h", "--client", "fd00:213::2")
    steps.command("reserve", OTHER, "--for", "1h", "--client", "10.213.0.3")
    steps.found["lost"] = steps.ask("ends")
    steps.get("reserved")
    steps.command("release", BUSID)
    steps.command("release", OTHER)
    steps.get("released")


def wait_for(stream: IO[str], text: str) -> None:
    for line in stream:
        if text in line:
            return
    raise AssertionError(f"no {text!r}")


def main(folder: Path) -> None:
    (folder / "config/usbip-capture").mkdir(parents=True)
    (folder / "config/usbip-capture/config.toml").write_text(RULES)
    with other_machine(list(SERVER.values()), CLIENTS) as inside:
        serve(folder, inside)


def serve(folder: Path, inside: int) -> None:
    machine = Machine(folder)
    listen = [f"--listen={SERVER[4]}:{PORT}", f"--listen=[{SERVER[6]}]:{PORT}", "--no-announce"]
    command = [sys.executable, "-W", "error", "-c", CODE, "serve", *listen]
    enter = ["nsenter", "-t", str(inside), "-n", sys.executable, "-m", "tests.programs.access_across_networks"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, cwd=folder, env=environment(folder), stderr=pipe, text=True) as server,
        subprocess.Popen([*enter, "client"], stdin=pipe, stdout=pipe, text=True) as user,
    ):
        try:
            assert server.stderr is not None
            machine.plug(OTHER_PORT, "1209:0002")
            wait_for(server.stderr, f"{OTHER} (1209:0002)")
            steps = Steps(folder, user)
            take(folder, steps)
            sys.stdout.write(json.dumps(steps.found))
        finally:
            user.kill()
            server.terminate()
    machine.close()


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client()
    else:
        main(Path(sys.argv[1]))
