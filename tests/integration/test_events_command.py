"""Every kind of event as a person sees it: `usbip-capture serve --audit` and `usbip-capture events` as they run."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs.serve_command import CODE, Serving, commands_in, listed
from tests.programs.simulated_machine import BUSID, environment
from tests.waiting import wait_until
from usbip_capture.cli import exits
from usbip_capture.errors import ImportRefused
from usbip_capture.servers.address import Selector

Event = dict[str, object]
FILE = "audit.ndjson"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    with commands_in(tmp_path) as start:
        yield start


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A command beside the server."""

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", CODE, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
        )

    return ran


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def read(folder: Path) -> list[Event]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def awaited(folder: Path, kind: str, **values: str) -> Event:
    """The first event of this kind that has these values, once it is in the file."""

    def found() -> list[Event]:
        return [event for event in read(folder) if event["kind"] == kind and values.items() <= event.items()]

    return wait_until(f"{kind} {values}", found)[0]


def test_every_kind_of_event(serve: Callable[..., Serving], run: Run, tmp_path: Path) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0", "--name", "bench", "--audit", FILE)
    server = serving.server()
    assert listed(server) == [f"{BUSID} (1209:0001)"]
    assert awaited(tmp_path, "exported", rule=BUSID)["device"] == "1209:0001"
    assert str(server.port) in str(awaited(tmp_path, "started")["text"])
    for kind in ("connected", "listed", "disconnected"):
        assert awaited(tmp_path, kind)["client"] == "127.0.0.1"

    device = serving.attach()
    awaited(tmp_path, "imported", busid=BUSID, device="1209:0001")
    with pytest.raises(ImportRefused):
        serving.attach()
    awaited(tmp_path, "refused", busid=BUSID, text="another client has it")
    with pytest.raises(ImportRefused):
        server.import_device(Selector("1-7"))
    awaited(tmp_path, "refused", busid="1-7", text="there is no such device")
    assert run("kick", BUSID).returncode == 0
    awaited(tmp_path, "ended", busid=BUSID, by="user")
    assert "URBs" in str(awaited(tmp_path, "released", busid=BUSID, by="user")["text"])
    device.close()

    assert run("reset", BUSID).returncode == 0
    awaited(tmp_path, "reset", busid=BUSID, by="user")
    device = serving.attach()
    assert run("bind", "1-9.8").returncode == 0
    awaited(tmp_path, "exports-changed", text=f"{BUSID}, 1-9.8", by="user")
    assert run("unbind", BUSID).returncode == 0
    awaited(tmp_path, "ended", text="its device is not exported any more", by="user")
    awaited(tmp_path, "withdrawn", busid=BUSID, by="user")
    device.close()
    serving.machine.plug("9.8")
    awaited(tmp_path, "exported", busid="1-9.8")
    device = serving.attach("1-9.8")
    serving.machine.unplug("9.8")
    awaited(tmp_path, "withdrawn", busid="1-9.8", text="its device is unplugged", by="device")
    device.close()

    shown = run("events")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(shown.stdout.splitlines()) == len(read(tmp_path))
    assert f"is refused {BUSID} (1209:0001): another client has it (by server)" in shown.stdout
    assert [json.loads(line) for line in run("events", "--json").stdout.splitlines()] == read(tmp_path)
    assert serving.end() == 0
    assert read(tmp_path)[-1]["kind"] == "stopped"
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_the_end_of_the_server_is_not_the_device_s(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0", "--audit", FILE)
    device = serving.attach()
    assert serving.end() == 0
    assert "is disconnected: the server is stopping\n" in serving.said
    assert "not exported any more" not in serving.said
    assert awaited(tmp_path, "ended", by="server")["text"] == "the server is stopping"
    awaited(tmp_path, "released", by="server")
    awaited(tmp_path, "withdrawn", by="server", text="the server is stopping")
    assert read(tmp_path)[-1]["kind"] == "stopped"
    device.close()


def test_too_many_clients_are_refused_and_a_flood_is_counted(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0", "--max-clients", "1", "--audit", FILE)
    device = serving.attach()
    server = serving.server()
    for _ in range(30):
        with pytest.raises(Exception, match=r"."):
            server.devices()
    assert awaited(tmp_path, "refused")["text"] == "too many clients"
    device.close()
    assert serving.end() == 0
    refused = [event for event in read(tmp_path) if event["kind"] == "refused"]
    assert len(refused) <= 12
    assert sum(int(str(event.get("times", 1))) for event in refused) >= 30


def test_a_client_of_garbage_is_named_with_the_reason(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0", "--audit", FILE)
    with socket.create_connection(("127.0.0.1", serving.server().port), 20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(100) == b""
        port = sock.getsockname()[1]
    ended = awaited(tmp_path, "ended", by="server")
    assert ended["port"] == port
    assert ended["text"]


def test_following(serve: Callable[..., Serving], run: Run, tmp_path: Path) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0", "--audit", FILE)
    server = serving.server()
    for _ in range(8):
        assert listed(server)
    command = [sys.executable, "-W", "error", "-c", CODE, "events", "--follow", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        before = [json.loads(following.stdout.readline()) for _ in range(10)]
        assert [event["number"] for event in before] == list(range(before[0]["number"], before[0]["number"] + 10))
        device = serving.attach()
        seen: list[str] = []
        while "imported" not in seen:
            seen.append(json.loads(following.stdout.readline())["kind"])
        device.close()
        while "released" not in seen:
            seen.append(json.loads(following.stdout.readline())["kind"])
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0
        assert following.stderr.read() == ""
    assert serving.end() == 0
    assert run("events").returncode == exits.NOT_RUNNING


def test_one_who_follows_learns_that_the_server_ends(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0")
    serving.server()
    command = [sys.executable, "-W", "error", "-c", CODE, "events", "-f"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert "exported: " in following.stdout.readline()
        assert serving.end() == 0
        assert following.wait(30) != 0
        (sentence,) = following.stderr.read().splitlines()
        assert re.fullmatch(r"usbip-capture: the server .* has ended", sentence)


def test_standard_output_has_the_lines(serve: Callable[..., Serving]) -> None:
    serving = serve("--device", BUSID, "--listen", "127.0.0.1:0", "--audit", "-")
    serving.server()
    assert serving.process.stdout is not None
    assert json.loads(serving.process.stdout.readline())["kind"] == "exported"
    assert serving.end() == 0
    assert json.loads(serving.process.stdout.read().splitlines()[-1])["kind"] == "stopped"


def test_the_options_of_the_configuration(serve: Callable[..., Serving], run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config/usbip-capture/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'[server]\nexports = ["{BUSID}"]\nlisten = "127.0.0.1:0"\naudit = "{tmp_path}/{FILE}"\n')
    serving = serve()
    serving.server()
    awaited(tmp_path, "started")
    path.write_text(f'[server]\nexports = ["{BUSID}", "1-9.8"]\n')
    awaited(tmp_path, "exports-changed", text=f"{BUSID}, 1-9.8")
    assert serving.end() == 0
    path.write_text('[server]\naudit-syslog = "tls:pi"\n')
    done = run("serve")
    assert done.returncode == exits.FAILED
    assert "config.toml, line 2: audit-syslog: 'tls:pi' is not where a syslog is" in done.stderr
