"""`usbip-capture fleet` against twenty servers: with dashboards and without, dead ones, and those that lie."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes.evil_server import EVIL
from tests.fakes.local_bus import FakeBus
from tests.fakes.scripted_dashboard import TOKEN, scripted_dashboard
from tests.integration.test_strangers_text import check
from tests.programs.commands import command_environment, run_line
from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_devices_api import attach, loop
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.server import Server
from usbip_capture.web.roles import LOOK

PLAIN, WITH_DASHBOARD, DEAD = 14, 4, 2
ALL = PLAIN + WITH_DASHBOARD + DEAD
#: Of the silent ones: each takes all of it.
PATIENCE = "--connect-timeout 3"


class Fleet(NamedTuple):
    """buses: of the servers with a dashboard, by name. servers: what these are."""

    folder: Path
    buses: dict[str, FakeBus]
    servers: dict[str, Any]

    def run(self, arguments: str, code: int = 0) -> str:
        done = run_line(f"usbip-capture fleet {PATIENCE} {arguments}", self.folder)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stdout + done.stderr
        return done.stdout

    def json(self, arguments: str = "", code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(f"{arguments} --json", code))
        return found


def configure(folder: Path, tables: dict[str, dict[str, str]]) -> None:
    path = folder / "config/usbip-capture/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            f"[{table}]\n" + "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in entries.items())
            for table, entries in tables.items()
        )
    )
    path.chmod(0o600)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    tables: dict[str, dict[str, str]] = {"servers": {}, "dashboards": {}, "tokens": {}}
    made = Fleet(tmp_path, {}, {})
    with ExitStack() as stack:
        for at in range(PLAIN):
            server = Server()
            server.add(INFO, partial(DemoDevice, INFO))
            tables["servers"][f"plain-{at:02d}"] = f"127.0.0.1:{server.listen('127.0.0.1', 0)[1]}"
            stack.callback(server.close)
        for at in range(WITH_DASHBOARD):
            name, bus = f"web-{at}", FakeBus()
            for port in range(3):
                bus.plug(f"1-1.{port + 1}", serial=f"{name}-{port}")
            local, web = stack.enter_context(dashboard(bus=bus))
            made.buses[name], made.servers[name] = bus, local
            tables["servers"][name] = local.address
            tables["dashboards"][name] = web.urls[0].rstrip("/")
            tables["tokens"][name] = web.side.tokens.add(name, LOOK)
            stack.callback(web.side.tokens.remove, name)
        for at in range(DEAD):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            tables["servers"][f"dead-{at}"] = f"127.0.0.1:{listener.getsockname()[1]}"
        configure(tmp_path, tables)
        yield made


def test_all_twenty_at_once(fleet: Fleet) -> None:
    found = fleet.json(code=3)
    servers = {server["name"]: server for server in found["servers"]}
    assert len(servers) == ALL
    assert found["totals"]["answered"] == PLAIN + WITH_DASHBOARD
    assert found["totals"]["devices"] == PLAIN + 3 * WITH_DASHBOARD
    assert {servers[f"dead-{at}"]["error"].partition(" ")[2][:19] for at in range(DEAD)} == {"accepts connections"}
    plain, web = servers["plain-00"], servers["web-1"]
    assert (plain["way"], plain["clients"], plain["version"]) == ("usbip", None, "")
    assert [device["busid"] for device in plain["devices"]] == ["1-1"]
    assert (web["way"], web["clients"], web["problem"]) == ("dashboard", 0, None)
    assert web["version"]
    assert [device["serial"] for device in web["devices"]] == ["web-1-0", "web-1-1", "web-1-2"]
    path = fleet.folder / "cache/usbip-capture/fleet"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert json.loads(path.read_text())["servers"].keys() == {
        server["address"] for server in found["servers"] if not server["error"]
    }


def test_who_has_what_and_what_passes(fleet: Fleet) -> None:
    device = attach(fleet.servers["web-0"], "1-1.2")
    loop(device, b"x" * 100)
    shown = fleet.run("web-0 plain-03")
    client = next(line for line in shown.splitlines() if " in use " in line)
    assert client.split()[:2] == ["1-1.2", "303a:4001"]
    assert "127.0.0.1:" in client
    assert "Demo device, web-0-1" in client
    assert "1 client, " in shown
    assert shown.splitlines()[-1].startswith("2 servers, 4 devices, 1 in use, 1 client, ")
    tree = fleet.run("web-0 --tree").splitlines()
    assert tree[1:4] == [
        "  Bus 001",
        "    |__ port 1 (hub)",
        "      |__ 1-1.1 303a:4001 Demo device, web-0-0 [free]",
    ]
    wait_until("all is counted", lambda: '"urbs": 3' in fleet.run("stats web-0 --json"), 60)
    found = fleet.json("stats web-0 plain-00", code=1)
    (used,) = [one for one in found["servers"][0]["devices"] if one["urbs"]]
    assert (used["busid"], used["bytes_in"], used["bytes_out"], used["errors"]) == ("1-1.2", 100, 100, 0)
    assert 0 < used["median"] <= used["quantile_99"]
    assert found["total"]["urbs"] == 3
    assert "no dashboard of plain-00 is known" in found["servers"][1]["error"]
    rows = fleet.run("stats web-0").splitlines()
    assert rows[0].split()[:3] == ["server", "device", "VID:PID"]
    assert rows[-1].split()[:3] == ["all", "all", "3"]
    device.close()


def test_what_is_missing_until_it_is_accepted(fleet: Fleet) -> None:
    fleet.run("web-0 web-1")
    fleet.buses["web-0"].unplug("1-1.2")
    for _ in range(2):
        shown = fleet.run("web-0 web-1", code=4)
        assert "  1-1.2  303a:4001  missing, last there " in shown
        assert shown.rstrip().endswith(", 1 missing")
    (lost,) = fleet.json("web-0", code=4)["servers"][0]["missing"]
    assert (lost["busid"], lost["serial"]) == ("1-1.2", "web-0-1")
    assert "[missing, last there " in fleet.run("web-0 --tree", code=4)
    fleet.buses["web-1"].plug("1-2", serial="web-0-1")  # somebody has moved it
    fleet.run("web-0 web-1")
    fleet.buses["web-1"].unplug("1-2")
    fleet.run("web-0 web-1", code=4)
    fleet.run("web-0 web-1 --accept")
    fleet.run("web-0 web-1")


def test_a_server_that_ended_is_remembered(fleet: Fleet) -> None:
    fleet.run("web-2")
    fleet.servers["web-2"].close()
    shown = fleet.run("web-2", code=3)
    assert "nothing listens on 127.0.0.1 port" in shown
    assert "; at " in shown
    assert " it had 3 devices\n" in shown


def test_watching(fleet: Fleet) -> None:
    command = ["usbip-capture", "fleet", "web-3", "--watch", "--json"]
    environment = command_environment(fleet.folder)
    with subprocess.Popen(
        command, cwd=fleet.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["totals"]["devices"] == 3
        fleet.buses["web-3"].unplug("1-1.3")
        while not (found := json.loads(process.stdout.readline()))["totals"]["missing"]:
            pass
        assert found["servers"][0]["missing"][0]["busid"] == "1-1.3"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_nothing_is_configured(tmp_path: Path) -> None:
    done = run_line("usbip-capture fleet", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no server is configured: name one" in done.stderr


@pytest.mark.parametrize(
    "line", ["stats --watch", "stats --tree demo", "stats --accept", "demo --json --tree", "http://", "demo --port 0"]
)
def test_what_cannot_be_meant_is_one_sentence(line: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture fleet {line}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


def evil_answers() -> dict[str, Any]:
    keys = ("busid", "vid_pid", "product", "serial", "state", "client")
    device = {**dict.fromkeys(keys, EVIL), "exported": True, "rate_in": 5}
    label = json.dumps(EVIL, ensure_ascii=False).replace("\r", " ")
    metrics = (
        f"usbip_device_info{{busid={label},vid={label},product={label}}} 1\nusbip_build_info{{version={label}}} 1\n"
    )
    return {
        "/api/v1/overview": {"version": EVIL, "name": EVIL, "uptime": 5, "clients": 1},
        "/api/v1/devices": {"devices": [device, {**device, "busid": "1-1.2"}]},
        "/metrics": metrics,
    }


def test_what_dashboards_say_is_clean(tmp_path: Path) -> None:
    refusal = {"/api/v1/overview": 5}
    with scripted_dashboard(evil_answers()) as evil, scripted_dashboard(refusal) as odd:
        words = f"{evil.url} {odd.url}"
        for arguments in (words, f"{words} --tree", f"{words} --json", f"stats {words}", f"stats {words} --json"):
            done = run_line(f"usbip-capture fleet {arguments}", tmp_path, USBIP_CAPTURE_TOKEN=TOKEN)
            check(done.stdout + done.stderr)
            assert "Traceback" not in done.stderr
            assert "owned" in done.stdout
        with_nothing: dict[str, Any] = {"/api/v1/overview": {}, "/api/v1/devices": {}}
    with scripted_dashboard(with_nothing) as empty:  # the port is another one: what is remembered is in another entry
        path = tmp_path / "cache/usbip-capture/fleet"
        path.write_text(path.read_text().replace(evil.url, empty.url))
        for arguments in ("", "--tree", "--json"):
            done = run_line(f"usbip-capture fleet {empty.url} {arguments}", tmp_path, USBIP_CAPTURE_TOKEN=TOKEN)
            check(done.stdout + done.stderr)
            assert (done.returncode, "owned" in done.stdout) == (4, True)


def test_a_terminal_has_the_worst_first(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        ["usbip-capture", "fleet", "demo", "127.0.0.1:1", "--watch"],
        cwd=tmp_path, env=command_environment(tmp_path, TERM="xterm", NO_COLOR="1"), stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        shown = b""
        while b"Generic pid.codes" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            select.select([ours], [], [], 0.1)
            os.set_blocking(ours, False)
            with suppress(BlockingIOError):
                shown += os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert shown.index(b"127.0.0.1:1: nothing listens") < shown.index(b"demo: USB/IP, 1 device")
    assert b"2 servers, 1 of them not there, 1 device" in shown
