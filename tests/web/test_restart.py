"""The command `serve`, restarted in place by its dashboard: in the same process, by what is configured then."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.local_bus import FakeBus
from tests.programs.serve_command import READ, Serving, commands_in, write_configuration
from tests.programs.sshd import free_port
from tests.waiting import wait_until
from tests.web.websocket import websocket
from usbip_capture.servers.server_table import ServerTable
from usbip_capture.serving.local_server import LocalServer
from usbip_capture.serving.restarting import Restart


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    with commands_in(tmp_path) as start:
        yield start


def pid_of(asking: httpx.Client) -> int | None:
    """None while the dashboard does not answer."""
    try:
        return int(asking.get("/api/v1/system").json()["pid"])
    except httpx.TransportError:
        return None


def restart(asking: httpx.Client) -> Any:
    offered = asking.get("/api/v1/restart").json()
    return asking.post("/api/v1/restart", json={"confirm": offered["confirm"]}).json()


def test_the_server_starts_again_as_it_is_configured_then(serve: Callable[..., Serving], tmp_path: Path) -> None:
    web, first, second = free_port(), free_port(), free_port()
    write_configuration(
        tmp_path, f'[server]\nexports = ["all"]\nlisten = "127.0.0.1:{first}"\nweb = "127.0.0.1:{web}"\n'
    )
    serving = serve()
    token = serving.wait_for(r"\?token=([\w-]+)")[1]
    base, headers = f"http://127.0.0.1:{web}", {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as asking:
        assert pid_of(asking) == serving.process.pid
        device = serving.attach()
        assert device.run(READ, 30).status == 0
        lost: list[str] = []
        device.watch(lost.append)
        changed = asking.patch("/api/v1/settings", json={"listen": [f"127.0.0.1:{second}"], "max-clients": 4})
        assert changed.json()["restart"] is True
        with websocket(base, "/ws", token, Origin=base) as socket:
            assert socket.receive()["type"] == "stats"
            assert restart(asking) == {"ok": True, "outcome": "the server restarts"}
            while socket.receive() is not None:  # the page connects again by itself
                pass
        wait_until("the client has lost the device", lambda: lost)
        device.close()
        serving.wait_for(rf"serving at 127\.0\.0\.1:{second}")
        wait_until("the dashboard is back", lambda: pid_of(asking) == serving.process.pid)
        assert [
            one["value"] for one in asking.get("/api/v1/settings").json()["settings"] if one["key"] == "listen"
        ] == [[f"127.0.0.1:{second}"]]
        # What it cannot be started with leaves it as it was.
        asking.patch("/api/v1/settings", json={"listen": ["203.0.113.1:3240"], "allow": ["192.0.2.0/24"]})
        assert restart(asking)["ok"]
        serving.wait_for(r"does not start as it is configured now: .*; it goes on as before")
        wait_until("the dashboard is back", lambda: pid_of(asking) == serving.process.pid)
        wait_until("it serves again", lambda: len(re.findall(rf"serving at 127\.0\.0\.1:{second}", serving.said)) == 2)
    assert serving.end() == 0


def test_nothing_is_left_of_a_server_that_was_restarted() -> None:
    """Neither threads nor what is open."""
    bus = FakeBus()
    bus.plug("1-1")
    wanted = ServerTable(exports=("all",), listen=("127.0.0.1:0",), web=("127.0.0.1:0",))
    starting = Restart(lambda: wanted, lambda settings: LocalServer(settings, bus))
    left: list[tuple[int, int]] = []
    for _ in range(4):
        server, _ = starting.start()
        assert server.dashboard is not None
        httpx.get(f"{server.dashboard.urls[0]}healthz", timeout=60, trust_env=False)
        server.close()
        gc.collect()
        left.append((threading.active_count(), len(os.listdir("/dev/fd"))))
    (threads, files), (threads_then, files_then) = left[1], left[-1]
    assert threads_then <= threads
    assert files_then <= files


def test_settings_show_what_the_command_line_has(serve: Callable[..., Serving]) -> None:
    serving = serve("--all", "--web", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--name", "rack", "--max-clients", "7",
                    "--hook", "attach=true --secret", "--no-reset")  # fmt: skip
    url, token = serving.wait_for(r"link, which is shown only once: (\S+)\?token=([\w-]+)").groups()
    answer = httpx.get(f"{url}api/v1/settings", headers={"authorization": f"Bearer {token}"}, timeout=60).json()
    shown = {one["key"]: one["running"] for one in answer["settings"] if one["given"]}
    assert {key: shown.get(key) for key in ("exports", "listen", "name", "max-clients", "hooks", "reset")} == {
        "exports": "all", "listen": "127.0.0.1:0", "name": "rack", "max-clients": "7", "hooks": "attach=true",
        "reset": "off",
    }  # fmt: skip
