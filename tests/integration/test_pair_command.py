"""`usbip-capture pair` with the real commands: by its code, its list, and removed again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.local_bus import FakeBus
from tests.programs.commands import run_line
from tests.programs.own_network import in_own_network
from usbip_capture import LocalServer, serve
from usbip_capture.cli import exits
from usbip_capture.devices.remote import import_device
from usbip_capture.tls.certificates import CLIENT, own_identity
from usbip_capture.tls.client import connect_tls

ANY, TIMEOUT = "127.0.0.1:0", 20.0
STAY = "usbip-capture: rules and reservations that name paired:ann stay: whoever is paired by this name next has them\n"
Run = Callable[[str], "tuple[int, list[str], str]"]


@pytest.fixture
def bus() -> FakeBus:
    made = FakeBus()
    made.plug("1-1")
    return made


@pytest.fixture
def server(bus: FakeBus) -> Iterator[LocalServer]:
    with serve(["all"], listen=ANY, tls=ANY, name="bench", bus=bus) as made:
        yield made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A command line in a process of its own, with the configuration and the sockets of this test."""

    def ran(line: str) -> tuple[int, list[str], str]:
        environment = {name: os.environ[name] for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")}
        done: subprocess.CompletedProcess[str] = run_line(f"usbip-capture {line} < /dev/null", tmp_path, **environment)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return ran


def where(server: LocalServer) -> str:
    assert server.tls is not None
    return f"tls://127.0.0.1:{server.tls.addresses[0][1]}"


def test_paired_listed_used_and_removed(server: LocalServer, bus: FakeBus, run: Run) -> None:
    assert server.tls is not None
    place, found = where(server), server.tls.fingerprint
    code, (secret,), hints = run("pair --offer")
    assert code == 0
    assert f"good for 5 minutes, and for one client; on it, run: usbip-capture pair {place}\n" in hints
    assert f"the certificate of this server is {found}\n" in hints
    paired = run(f"pair {place.removeprefix('tls://')} {secret.lower()} --name ann")
    assert paired == (0, [f"paired with {place}, as ann; its certificate is {found}"], "")
    code, lines, _ = run("pair --list")
    assert (code, lines[0].split()) == (0, ["NAME", "SINCE", "CERTIFICATE"])
    assert (lines[1].split()[0], lines[1].split()[-1]) == ("ann", own_identity(CLIENT).fingerprint)
    assert run("access show")[1][-2:] == [
        "for clients that are paired with it, also:",
        "  allow paired:ann all",
    ]
    code, lines, _ = run(f"list {place}")
    assert code == 0
    assert any("1-1" in line for line in lines)
    with closing(import_device(connect_tls("127.0.0.1", server.tls.addresses[0][1], TIMEOUT), "1-1", TIMEOUT)):
        assert run("pair --remove ann") == (0, ["ann is not paired any more"], STAY)
        assert bus.plugged["1-1"].opened[-1].released.wait(TIMEOUT)
    assert run("pair --list") == (0, [], "usbip-capture: no client is paired\n")
    code, _, error = run("pair --remove ann")
    assert (code, error) == (exits.USAGE, "usbip-capture pair: no client called 'ann' is paired: there is none\n")
    code, _, error = run(f"list {place}")
    assert code != 0
    assert "it does not know the certificate of this machine: pair with it again" in error


def test_a_name_that_is_fixed(server: LocalServer, run: Run) -> None:
    code, (secret,), hints = run("pair --offer --name ann")
    assert code == 0
    assert f"on it, run: usbip-capture pair {where(server)} --name ann\n" in hints
    assert "it is ann; it may have all devices, unless a rule of access allows something to `paired`, or to" in hints
    code, _, error = run(f"pair {where(server)} {secret} --name bob")
    assert (code, "give the one that was offered there, with --name" in error) == (exits.FAILED, True)
    assert run(f"pair {where(server)} {secret} --name ann")[0] == 0
    assert "the client chooses its name, unless you fix it with --offer --name NAME; it may" in run("pair --offer")[2]


def test_for_scripts(server: LocalServer, run: Run) -> None:
    assert server.tls is not None
    offer = json.loads("\n".join(run("pair --offer --json")[1]))
    assert (offer["seconds"], offer["fingerprint"]) == (300, server.tls.fingerprint)
    done = json.loads("\n".join(run(f"pair {where(server)} {offer['code']} --json")[1]))
    assert (done["server"], done["fingerprint"]) == (where(server), server.tls.fingerprint)
    (client,) = json.loads("\n".join(run("pair --list --json")[1]))
    assert (client["name"], client["fingerprint"]) == (done["name"], own_identity(CLIENT).fingerprint)


def test_clients_are_listed_and_removed_where_no_server_runs(server: LocalServer, run: Run) -> None:
    secret = run("pair --offer")[1][0]
    run(f"pair {where(server)} {secret} --name ann")
    server.close()
    assert run("pair --list")[1][1].split()[0] == "ann"
    assert run("pair --remove ann") == (0, ["ann is not paired any more"], STAY)
    assert run("pair --list") == (0, [], "usbip-capture: no client is paired\n")
    code, _, error = run("pair --offer")
    assert (code, "start one with `usbip-capture serve`" in error) == (exits.NOT_RUNNING, True)


@pytest.mark.parametrize(("line", "sentence"), [
    ("pair", "name the server, such as tls://pi; or, on the server, give --offer"),
    ("pair tls://pi", "the code is missing: usbip-capture pair tls://pi CODE"),
    ("pair tls://pi ABCD", "'ABCD' is not a code: type the 12 characters that the server has printed"),
    ("pair tls://pi ABCD-EFGH-JKLM --name 'a b'", "'a b' is not a name of a client"),
    ("pair ssh://pi ABCD-EFGH-JKLM", "'ssh://pi' is not a server with TLS: write tls://HOST"),
    ("pair demo ABCD-EFGH-JKLM", "'demo' is not a server with TLS: write tls://HOST"),
    ("pair --offer tls://pi", "--offer, --list and --remove are for the server of this machine"),
    ("pair --list --name ann", "--offer, --list and --remove are for the server of this machine"),
    ("pair --offer --list", "use either --list or --offer, not both"),
])  # fmt: skip
def test_what_cannot_be_meant(run: Run, line: str, sentence: str) -> None:
    code, lines, error = run(line)
    assert (code, lines) == (exits.USAGE, [])
    assert sentence in error


def test_a_server_without_tls_does_not_pair(run: Run, bus: FakeBus) -> None:
    with serve(["all"], listen=ANY, name="bench", bus=bus) as plain:
        code, _, error = run("pair --offer")
        assert (code, error) == (
            exits.FAILED,
            "usbip-capture: this server does not listen for TLS: start it with --tls\n",
        )
        code, _, error = run(f"pair tls://{plain.address} ABCD-EFGH-JKLM")
        assert code == exits.SERVER
        assert f"tls://{plain.address} ended the connection" in error


def test_nobody_there(run: Run) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    code, _, error = run(f"pair tls://127.0.0.1:{port} ABCD-EFGH-JKLM")
    assert code == exits.SERVER
    assert error.count("\n") == 1


def test_pairing_is_what_lets_another_machine_in(tmp_path: Path) -> None:
    """With addresses that are not loopback, and a closed server: nothing, then all, then nothing again."""
    printed = in_own_network("tests.programs.pairing_machines", timeout=200)
    assert json.loads(printed) == {"before": [], "paired": ["1-1"], "limited": ["1-2"], "removed": []}
