"""What the front end of the fifth seed asks for is answered as it expects it, and its bugs are not there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import httpx
import pytest
from starlette.routing import Route

from tests.fakes.local_bus import FakeBus
from tests.fakes.local_machine import local_machine
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from tests.web.dashboards import ANY, configured, dashboard
from tests.web.seed_front_end import SeedFrontEnd, address
from tests.web.test_devices_api import READ, attach, losing
from tests.web.websocket import Refused
from usbip_capture import LocalServer, serve
from usbip_capture.access.rules import AccessRule
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.net.listening import Peer
from usbip_capture.servers.server_table import read_server_table
from usbip_capture.serving.restarting import Restart
from usbip_capture.web.api import compat, compat_captures
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.seed_data import SeedView, _client, _packed

HOSTILE = '"><img src=x onerror=alert(1)>\\\n\x1b[2J'


class Seed(NamedTuple):
    """A server as it is configured, and the front end at it."""

    server: LocalServer
    made: Dashboard
    page: SeedFrontEnd
    bus: FakeBus


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return configured(tmp_path, monkeypatch, '[server]\nexports = ["1-1", "1-2"]\nname = "bench"\n')


@pytest.fixture
def seed(path: Path) -> Iterator[Seed]:
    bus = FakeBus()
    bus.plug("1-1", serial="7")
    bus.plug("1-2", (0x1234, 0x5678))
    with serve(listen=ANY, web=ANY, bus=bus) as server:
        made = cast("Dashboard", server.dashboard)
        page = SeedFrontEnd(made.urls[0], made.side.tokens.add("scripts", "administer"))
        yield Seed(server, made, page, bus)
        page.close()


def with_role(seed: Seed, role: str) -> SeedFrontEnd:
    return SeedFrontEnd(seed.made.urls[0], seed.made.side.tokens.add(f"only-{role}", role))


def test_the_dashboard_shows_what_a_client_does(seed: Seed) -> None:
    with seed.page.live() as socket:
        message = seed.page.stats(socket)
        first, second = message["devices"]
        assert (first["idx"], first["path"], first["vid"], first["pid"]) == (0, "1-1", 0x303A, 0x4001)
        assert (first["state"], first["client_ip"], first["bi"], first["icl"]) == (0, 0, 0, [3, 8])
        assert (first["mfr"], first["prod"], second["path"]) == ("usbip_capture", "Demo device", "1-2")
        device = attach(seed.server)
        for _ in range(10):
            assert device.run(READ, 30).status == 0
        message = seed.page.stats(socket, lambda message: message["devices"][0]["uok"] >= 10)
        first = message["devices"][0]
        assert (first["state"], address(first["client_ip"])) == (1, "127.0.0.1")
        assert first["bi"] >= 180
        assert (first["ufl"], first["bo"]) == (0, 0)
        assert any("has imported 1-1" in entry["msg"] for entry in message["logs"])
        stamps = [entry["ts"] for entry in message["logs"]]
        assert stamps == sorted(stamps, reverse=True)
        assert stamps[0] <= (time.time() - seed.made.side.started) * 1e6
        device.close()
        seed.page.stats(socket, lambda message: message["devices"][0]["state"] == 0)


def test_a_plug_and_an_unplug_are_shown_and_numbers_stay(seed: Seed) -> None:
    with seed.page.live() as socket:
        seed.page.stats(socket)
        seed.bus.unplug("1-1")
        message = seed.page.stats(socket, lambda message: len(message["devices"]) == 1)
        assert [(one["idx"], one["path"]) for one in message["devices"]] == [(1, "1-2")]
        assert seed.page.act("reset", 0) == {"ok": False, "error": "device not found"}
        seed.bus.plug("1-3")
        seed.bus.plug("1-1")
        message = seed.page.stats(socket, lambda message: len(message["devices"]) == 3)
        assert [(one["idx"], one["path"]) for one in message["devices"]] == [(0, "1-1"), (1, "1-2"), (2, "1-3")]


def test_lists_and_figures(seed: Seed) -> None:
    found = seed.page.get("/api/devices")
    assert found[1] == {
        "index": 1, "path": "1-2", "vid": 0x1234, "pid": 0x5678, "speed": 2, "state": 0, "client_ip": 0, "class": 0,
        "subclass": 2, "protocol": 1,
    }  # fmt: skip
    stats = seed.page.get("/api/stats")
    assert (stats["device_count"], stats["ip"]) == (2, "127.0.0.1")
    assert stats["free_heap"] > 0
    assert seed.page.get("/api/logs")[0].keys() == {"ts", "level", "msg"}
    info = seed.page.get("/api/system/info")
    assert info.keys() == {"version", "idf_version", "chip", "revision", "heap_free", "heap_internal", "uptime_sec"}
    assert (info["heap_internal"], info["idf_version"][:7]) == (0, "Python ")


def test_the_detail_of_a_device_has_its_descriptors(path: Path, tmp_path: Path) -> None:
    with local_machine(tmp_path) as machine:
        machine.plug_demo(2, product=HOSTILE)
        path.write_text('[server]\nexports = ["all"]\n')
        with serve(listen=ANY, web=ANY, bus=LocalBus.shared()) as server:
            made = cast("Dashboard", server.dashboard)
            page = SeedFrontEnd(made.urls[0], made.side.tokens.add("scripts", "look"))
            found = page.detail(page.get("/api/devices")[0]["index"])
            page.close()
    assert found["path"] == "1-2"
    assert found["product"].startswith('"><img src=x')
    assert (found["speed"], found["state"], found["client_ip"]) == ("High", "Available", "")
    assert found["num_interfaces"] == len({one["number"] for one in found["interfaces"]}) > 1
    assert found["interfaces"][0].keys() == {"number", "class", "subclass", "protocol", "num_endpoints"}
    kinds = {(one["address"], one["direction"], one["type"]) for one in found["endpoints"]}
    assert {kind for _, _, kind in kinds} >= {"Bulk", "Interrupt"}
    assert all((direction == "IN") == (int(where, 16) >= 0x80) for where, direction, _ in kinds)
    assert all(one["max_packet_size"] for one in found["endpoints"])


def test_the_buttons_do_what_they_say(seed: Seed) -> None:
    device = attach(seed.server)
    lost = losing(device)
    assert seed.page.act("reset", 0) == {"ok": True}
    assert not lost
    assert seed.page.act("disconnect", 0) == {"ok": True}
    wait_until("the socket of the client is closed, not only its state changed", lambda: lost)
    device.close()
    assert seed.page.act("disconnect", 0) == {"ok": True}  # nobody has it, as was wanted
    assert "1-1" in [info.busid for info in seed.server.devices]
    assert seed.page.act("export", 0) == {"ok": True}
    assert [info.busid for info in seed.server.devices] == ["1-2"]
    assert seed.page.act("export", 0) == {"ok": True}
    assert [info.busid for info in seed.server.devices] == ["1-1", "1-2"]
    for idx in ("7", "-1", "x", "", "1e3", "9" * 400):
        answer = seed.page.post(f"/api/devices/reset?idx={idx}")
        assert (answer["ok"], type(answer["error"])) == (False, str)


def test_the_page_toggles_an_export_over_its_socket(seed: Seed) -> None:
    with seed.page.live() as socket:
        socket.send("not an object")
        socket.send({"action": "toggle_export", "busid": "no-such"})
        socket.send({"action": "toggle_export", "busid": "1-1"})
        wait_until("it is not exported", lambda: [info.busid for info in seed.server.devices] == ["1-2"])
        socket.send({"action": "toggle_export", "busid": "1-1"})
        wait_until("it is exported", lambda: len(seed.server.devices) == 2)
        seed.page.stats(socket)


def test_who_may_only_look_changes_nothing(seed: Seed) -> None:
    page = with_role(seed, "look")
    for path in ("devices/reset?idx=0", "devices/disconnect?idx=0", "devices/export?idx=0", "settings/acl",
                 "settings/network", "settings/auth", "restart", "system/restart", "system/factory-reset"):  # fmt: skip
        assert "role" in page.post(f"/api/{path}", {})["error"]
    with page.live() as socket:
        socket.send({"action": "toggle_export", "busid": "1-1"})
        page.stats(socket)
        page.stats(socket)
    assert len(seed.server.devices) == 2
    page.close()


def test_a_page_of_another_site_gets_nothing(seed: Seed) -> None:
    with pytest.raises(Refused, match="401"), SeedFrontEnd(seed.page.url, "wrong").live():
        pass
    headers = {"Authorization": seed.page._basic, "Origin": "http://evil.example"}
    assert httpx.post(f"{seed.page.url}/api/devices/export?idx=0", headers=headers, timeout=60).status_code == 403
    assert httpx.get(f"{seed.page.url}/api/devices", headers={"Host": "evil.example"}, timeout=60).status_code == 403
    answer = httpx.get(f"{seed.page.url}/api/devices", timeout=60)
    assert (answer.status_code, answer.json()["ok"]) == (401, False)


def test_the_network_is_the_system_s(seed: Seed, path: Path) -> None:
    assert seed.page.get("/api/settings/network") == {
        "hostname": "bench", "dhcp": True, "static_ip": "", "netmask": "", "gateway": "", "dns": "",
    }  # fmt: skip
    before = path.read_text()
    assert seed.page.save_network() == {"ok": True, "reboot_required": True}
    assert path.read_text() == before
    for changed in ({"dhcp": "false"}, {"static_ip": "192.0.2.7"}, {"dns": "192.0.2.1"}):
        assert "matter of this machine's own system" in seed.page.save_network(**changed)["error"]
    assert seed.page.save_network(hostname='a"b')["ok"]
    assert read_server_table().name == 'a"b'
    assert json.dumps(seed.page.get("/api/settings/network"))
    assert seed.page.save_network(hostname="a\x00b")["ok"] is False
    assert seed.page.get("/api/settings/auth") == {"enabled": True, "username": "scripts"}
    assert "tokens" in seed.page.post("/api/settings/auth", {"enabled": False, "username": "x"})["error"]


def test_the_list_of_who_may_is_not_lost(seed: Seed) -> None:
    assert seed.page.get("/api/settings/acl") == {"closed": True, "allowlist": []}
    many = [f"192.0.2.{number}" for number in range(1, 60)]  # more than 32, and than 512 bytes
    assert seed.page.post("/api/settings/acl", {"closed": True, "allowlist": many}) == {"ok": True}
    assert seed.page.get("/api/settings/acl") == {"closed": True, "allowlist": many}
    assert seed.page.post("/api/settings/acl", {"closed": False}) == {"ok": True}
    assert seed.page.get("/api/settings/acl") == {"closed": False, "allowlist": many}
    seed.server.access.change("", [AccessRule.parse("allow 192.0.2.99 1-1")], [])
    wanted = {"closed": True, "allowlist": ["2001:db8::/32", "192.0.2.3"]}
    assert seed.page.post("/api/settings/acl", wanted) == {"ok": True}
    assert sorted(seed.page.get("/api/settings/acl")["allowlist"]) == ["192.0.2.3", "2001:db8::/32"]
    for wrong in ({"allowlist": "192.0.2.1"}, {"allowlist": [1]}, {"allowlist": ["any"]}, {"closed": "x"},
                  {"closed": False, "allowlist": ["192.0.2.1", "nonsense"]}):  # fmt: skip
        assert seed.page.post("/api/settings/acl", wrong)["ok"] is False
    assert seed.page.get("/api/settings/acl")["closed"] is True
    assert read_server_table().access == "closed"


def test_restart_and_factory_reset(seed: Seed) -> None:
    for path in ("/api/restart", "/api/system/restart", "/api/system/factory-reset"):
        assert "part of another program" in seed.page.post(path)["error"]
    seed.server.restart = Restart(read_server_table)
    assert seed.page.post("/api/system/factory-reset") == {"ok": True, "message": "factory reset"}
    wait_until("it is to restart", lambda: seed.server.restart is not None and seed.server.restart.requested)
    assert (read_server_table().exports, read_server_table().name) == ((), "")
    assert seed.page.post("/api/restart")["ok"] is False  # it does already


def test_the_capture_of_its_page(seed: Seed, tmp_path: Path) -> None:
    status = seed.page.get("/api/capture/status")
    assert (status["card_present"], status["capturing"], status["filename"]) == (True, False, "")
    assert seed.page.download().status_code == 404
    assert seed.page.post("/api/capture/delete") == {"ok": False, "error": "No capture file to delete"}
    assert seed.page.post("/api/capture/stop") == {"ok": True}
    started = seed.page.post("/api/capture/start")
    assert started["ok"]
    assert seed.page.post("/api/capture/start") == {"ok": False, "error": "Already capturing"}
    device = attach(seed.server)
    for _ in range(20):
        assert device.run(READ, 30).status == 0
    device.close()
    assert seed.page.post("/api/capture/delete") == {"ok": False, "error": "Stop capture first"}
    assert seed.page.post("/api/capture/stop") == {"ok": True}
    status = seed.page.get("/api/capture/status")
    assert (status["capturing"], status["filename"], status["dropped_count"]) == (False, started["filename"], 0)
    assert status["packet_count"] >= 40
    answer = seed.page.download()
    assert answer.headers["content-disposition"] == f'attachment; filename="{started["filename"]}"'
    assert len(answer.content) == status["file_size"]
    path = tmp_path / "download.pcapng"
    path.write_bytes(answer.content)
    assert len(list(read_capture(path))) >= 40  # each with its device and endpoint, of all types of transfer
    assert seed.page.post("/api/capture/delete") == {"ok": True}
    assert seed.page.get("/api/capture/status")["filename"] == ""


#: What no handler expects.
STRANGE: list[object] = [
    [], "x", 1, None, {"closed": []}, {"allowlist": {}}, {"allowlist": [None]}, {"allowlist": ["::ffff:192.0.2.1/96"]},
    {"hostname": 5}, {"hostname": "\ud800"}, {"hostname": ["x"] * 100}, {"dhcp": {}}, {"static_ip": 1},
    {"closed": True, "allowlist": ["192.0.2.0/33"]}, {"a" * 1000: "b"},
]  # fmt: skip


def test_nothing_that_is_sent_is_an_internal_error(seed: Seed, caplog: pytest.LogCaptureFixture) -> None:
    auth = {"Authorization": seed.page._basic, "Content-Type": "application/json"}
    routes = [route for route in (*compat.ROUTES, *compat_captures.ROUTES) if isinstance(route, Route)]
    with httpx.Client(base_url=seed.page.url, headers=auth, timeout=60, trust_env=False) as client:
        for route in routes:
            (method,) = (route.methods or set()) - {"HEAD"}
            takes_body = method == "POST" and "/settings/" in route.path
            asked = [("", body) for body in (STRANGE if takes_body else STRANGE[:1])]
            for query, body in [*asked, ("?idx=99", None), ("?idx=%00", None)]:
                answer = client.request(method, route.path + query, content=json.dumps(body).encode())
                assert answer.status_code in (200, 400, 404, 409, 501), (method, route.path, body, answer.text)
            assert client.request("DELETE", route.path).status_code == 405
            assert client.post(route.path, content=b"{" * 70000).status_code in (400, 405)
    assert "internal" not in caplog.text


def test_addresses_that_the_message_cannot_hold_are_0() -> None:
    assert [_packed(text) for text in ("127.0.0.1", "192.0.2.7", "2001:db8::7", "", "x")] == [
        0x0100007F, 0x070200C0, 0, 0, 0,
    ]  # fmt: skip


def test_a_device_of_a_client_of_this_machine_has_no_address() -> None:
    with dashboard() as (server, _):
        (found,) = server.operations.devices
        assert _client(found) == ""
        assert Peer().host == ""


def test_a_hundred_pages_get_one_message(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made anew for none of them while it is good."""
    made: list[int] = []

    def devices(view: SeedView, side: object) -> dict[int, object]:
        made.append(1)
        return {}

    monkeypatch.setattr(SeedView, "devices", devices)
    monkeypatch.setattr("usbip_capture.web.seed_data._AGE", 1e9)
    view = seed.made.side.seed_view
    assert len({view.message(seed.made.side) for _ in range(100)}) == 1
    assert len(made) == 1
