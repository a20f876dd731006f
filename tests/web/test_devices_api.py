"""Devices, clients and the overview as the interfaces have them, while clients do real transfers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.local_bus import FakeBus, SwitchableBus
from tests.fakes.local_machine import local_machine
from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.errors import ImportRefused
from usbip_capture.net.listening import Peer
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.server_table import read_server_table
from usbip_capture.serving import fronts, local_server, ports
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.web.api.clients import pattern_of
from usbip_capture.web.roles import LOOK, OPERATE

API = "/api/v1"
READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())


def attach(server: Any, busid: str = "1-1") -> Device:
    device = ServerAddress.parse(server.address, timeout=20.0).import_device(Selector(busid))
    device.run(Urb.control(set_configuration(1).pack()), 20.0)
    return device


def losing(device: Device) -> list[str]:
    """Why it was lost, once it is."""
    found: list[str] = []
    device.watch(found.append)
    return found


def loop(device: Device, data: bytes) -> None:
    """Out, and back in."""
    assert device.run(Urb(TransferType.BULK, BULK_OUT, len(data), data), 20.0).status == 0
    assert bytes(device.run(Urb(TransferType.BULK, BULK_IN, 512), 20.0).data) == data


def get(client: httpx.Client, path: str) -> Any:
    answer = client.get(API + path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> str:
    assert (answer.status_code, answer.json()["ok"]) == (status, False)
    return str(answer.json()["error"])


def post(client: httpx.Client, path: str, **body: object) -> str:
    answer = client.post(API + path, json=body)
    assert (answer.status_code, answer.json()["ok"]) == (200, True), answer.text
    return str(answer.json()["outcome"])


def events(server: Any, kind: str) -> list[tuple[str, str, str]]:
    return [(event.busid, event.text, event.by) for event in server.events.after(0, 1000) if event.kind == kind]


def test_what_a_device_has_done() -> None:
    with dashboard() as (server, made), asking(made, LOOK) as client:
        device = attach(server)
        loop(device, b"x" * 100)
        wait_until("all is counted", lambda: server.operations.count().totals.urbs == 3)
        made.side.history.sample()
        shown = get(client, "/devices/1-1")
        assert (shown["state"], shown["exported"], shown["rule"], shown["why"]) == ("in use", True, "all", "")
        assert (shown["bytes_in"], shown["bytes_out"], shown["urbs"], shown["errors"]) == (100, 100, 3, 0)
        assert shown["client"].startswith("127.0.0.1:")
        assert shown["strings"]["product"] == "Demo device"
        by_address = {endpoint["address"]: endpoint for endpoint in shown["endpoints"]}
        assert list(by_address) == [0, BULK_OUT, BULK_IN]
        found = by_address[BULK_IN]
        assert (found["direction"], found["type"], found["urbs"], found["bytes"]) == ("in", "bulk", 1, 100)
        assert (found["last_status"], found["errors"]) == (0, 0)
        assert 0 < found["median"] == found["p99"] <= found["histogram"][-1][0]
        assert sum(number for _, number in found["histogram"]) == 1
        history = get(client, "/devices/1-1/history")
        assert history["interval"] == 0.5
        assert len(history["times"]) == len(history["in"]) == len(history["out"])
        assert max(history["in"]) > 0
        (listed,) = [one for one in get(client, "/clients")["clients"] if one["busid"]]
        assert (listed["bytes_in"], listed["bytes_out"], listed["product"]) == (100, 100, "Demo device")
        assert listed["round_trip"] is None or 0 < listed["round_trip"] < 60
        overview = get(client, "/overview")
        assert overview["devices"] == {"plugged": 1, "exported": 1, "in_use": 1}
        assert overview["memory"]["rss"] > 1 << 20
        assert overview["events"][0]["number"] == server.events.last
        device.close()


def test_a_client_that_is_there_before_the_dashboard_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those are that attach their devices again when a server restarts."""
    early: list[Device] = []
    opened = fronts.opened_dashboard

    def opened_late(server: Any, settings: Any) -> Any:
        early.append(attach(server))
        return opened(server, settings)

    monkeypatch.setattr(local_server, "opened_dashboard", opened_late)
    with dashboard() as (server, made), asking(made, LOOK) as client:
        loop(early[0], b"x" * 100)
        wait_until("all is counted", lambda: server.operations.count().totals.urbs == 3)
        assert [one["bytes_in"] for one in get(client, "/clients")["clients"] if one["busid"]] == [100]
        early[0].close()


def test_the_tree_has_the_hubs_above_what_is_plugged_in() -> None:
    bus = FakeBus()
    bus.plug("1-2", classes=(9,), bDeviceClass=9)
    bus.plug("1-2.4", classes=(8,))
    bus.plug("2-1.3", classes=(3,))
    with dashboard(bus=bus) as (_, made), asking(made, LOOK) as client:
        found = get(client, "/devices")["devices"]
        assert [(one["busid"], one["parent"], one["hub"], one["state"]) for one in found] == [
            ("usb1", "", True, "hub"),
            ("1-2", "usb1", True, "hub"),
            ("1-2.4", "1-2", False, "free"),
            ("usb2", "", True, "hub"),
            ("2-1", "usb2", True, "hub"),
            ("2-1.3", "2-1", False, "free"),
        ]
        assert [one["root"] for one in found] == [True, False, False, True, False, False]
        assert [(one["port"], one["icon"], one["class"]) for one in found if not one["hub"]] == [
            (4, "disk", "08"), (3, "other", "03"),
        ]  # fmt: skip
        keys = {tuple(one) for one in found}
        assert len({frozenset(one) for one in keys}) == 1, "each has the same fields"
        assert get(client, "/devices/usb2")["endpoints"] == []
        assert "nothing is plugged in at '9-9'" in refused(client.get(f"{API}/devices/9-9"), 404)


def test_a_device_of_this_machine_has_its_descriptors_ports_and_drivers(tmp_path: Path) -> None:
    with local_machine(tmp_path) as machine:
        machine.plug_demo(1, 4)
        for name, ports in (("usb1", 4), ("1-1", 7)):
            folder = tmp_path / "sys/bus/usb/devices" / name
            folder.mkdir(parents=True)
            (folder / "maxchild").write_text(f"{ports}\n")
        with dashboard(bus=LocalBus.shared()) as (_, made), asking(made, LOOK) as client:
            found = {one["busid"]: one for one in get(client, "/devices")["devices"]}
            assert (found["usb1"]["ports"], found["1-1"]["ports"], found["1-1.4"]["ports"]) == (4, 7, 0)
            assert found["1-1.4"]["drivers"] == ["cdc_acm", "usbhid"]
            shown = get(client, "/devices/1-1.4")
            assert "idVendor           0x1209" in shown["descriptors"]
            assert shown["descriptors"].startswith("Bus 001 Device 007")
            packets = {one["address"]: one["max_packet_size"] for one in shown["endpoints"]}
            assert (packets[BULK_IN], len(packets)) == (512, 6)


def test_exported_and_withdrawn_by_hand() -> None:
    with dashboard() as (server, made), asking(made, OPERATE) as client:
        device = attach(server)
        lost = losing(device)
        assert "client 127.0.0.1:" in post(client, "/devices/1-1/export", on=False)
        wait_until("the client has lost it", lambda: lost)
        device.close()
        assert events(server, "withdrawn") == [
            ("1-1", "its device is not exported any more, by hand", "web:test-operate")
        ]
        shown = get(client, "/devices/1-1")
        assert (shown["state"], "by hand" in shown["why"]) == ("not exported", True)
        assert "1-1 is not exported" in refused(client.post(f"{API}/devices/1-1/export", json={"on": False}), 409)
        assert post(client, "/devices/1-1/export", on=True) == "1-1 is exported"
        assert get(client, "/devices/1-1")["state"] == "free"
        attach(server).close()
        assert "on is missing" in refused(client.post(f"{API}/devices/1-1/export", json={}), 400)


def test_a_hub_is_not_exported() -> None:
    bus = FakeBus()
    bus.plug("1-2", classes=(9,), bDeviceClass=9)
    with dashboard(bus=bus) as (_, made), asking(made, OPERATE) as client:
        error = refused(client.post(f"{API}/devices/1-2/export", json={"on": True}), 409)
        assert error.startswith("1-2 cannot be exported: hubs are not lent")


def test_more_devices_than_may_be_are_not_exported_by_hand_either() -> None:
    bus = FakeBus()
    bus.plug("1-1")
    bus.plug("1-2")
    with dashboard(bus=bus, max_devices=1) as (server, made), asking(made, OPERATE) as client:
        error = refused(client.post(f"{API}/devices/1-2/export", json={"on": True}), 409)
        assert error.startswith("1-2 cannot be exported: as many devices are as may be")
        post(client, "/devices/1-1/export", on=False)
        post(client, "/devices/1-2/export", on=True)
        assert [found.info.busid for found in server.exported] == ["1-2"]


def test_an_ejected_device_is_exported_again_when_it_is_plugged_in_again() -> None:
    bus = FakeBus()
    bus.plug("1-1")
    with dashboard(bus=bus) as (server, made), asking(made, OPERATE) as client:
        device = attach(server)
        told = get(client, "/devices/1-1/eject")["text"]
        assert "until it is plugged in again or exported by hand. Client 127.0.0.1:" in told
        post(client, "/devices/1-1/eject")
        wait_until("it is free", lambda: not [found for found in server.clients if found.busid])
        device.close()
        assert events(server, "withdrawn") == [("1-1", "its device is ejected", "web:test-operate")]
        with pytest.raises(ImportRefused):
            attach(server)
        bus.unplug("1-1")
        bus.plug("1-1")
        wait_until("it is exported again", lambda: get(client, "/devices")["devices"][-1]["state"] == "free")


def test_clients_are_ended_by_device_and_by_number() -> None:
    with dashboard() as (server, made), asking(made, OPERATE) as client:
        assert refused(client.post(f"{API}/devices/1-1/disconnect"), 409) == "nobody has 1-1"
        for path in ("/devices/1-1/disconnect", "/clients/{}/disconnect"):
            device = attach(server)
            lost = losing(device)
            number = next(found.number for found in server.clients if found.busid)
            outcome = post(client, path.format(number))
            assert outcome.endswith("is disconnected from 1-1")
            wait_until("it has lost the device", lambda: lost)  # noqa: B023
            device.close()
            wait_until("it is free", lambda: get(client, "/devices/1-1")["state"] == "free")
        assert {by for _, _, by in events(server, "ended")} == {"web:test-operate"}
        assert "is not connected any more" in refused(client.post(f"{API}/clients/{number}/disconnect"), 404)
        assert "is not the number of a client" in refused(client.post(f"{API}/clients/x/disconnect"), 404)


def test_reset_and_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "OFF_TIME", 0.0)
    bus = SwitchableBus()
    with dashboard(bus=bus) as (server, made), asking(made, OPERATE) as client:
        device = attach(server)
        assert post(client, "/devices/1-1/reset") == "1-1 was reset"
        assert events(server, "reset") == [("1-1", "", "web:test-operate")]
        device.close()
        assert "is not exported" in refused(client.post(f"{API}/devices/1-9/reset"), 404)
        assert post(client, "/devices/1-1/power", action="off") == "the port 1-1 has no power now"
        wait_until("it is gone", lambda: not server.operations.devices)
        off = get(client, "/devices/1-1")
        assert set(get(client, "/devices/1-1/history")) == {"interval", "times", "in", "out"}
        assert (off["state"], off["why"]) == ("no power", "the power of its port is switched off: switch it on")
        assert [one["busid"] for one in get(client, "/devices")["devices"]] == ["usb1", "1-1"]
        refused(client.post(f"{API}/devices/1-1/export", json={"on": True}), 404)
        assert post(client, "/devices/1-1/power", action="on") == "the port 1-1 has power now"
        wait_until("it is exported again", lambda: get(client, "/devices/1-1")["state"] == "free")
        post(client, "/devices/1-1/power", action="cycle")
        assert bus.switched == [("1-1", False), ("1-1", True)] * 2
        assert [text for _, text, _ in events(server, "power")] == ["off", "on", "cycle"]
        bus.refusal = "the hub 1-0 cannot switch the power of its port 1: it has no power switches"
        assert refused(client.post(f"{API}/devices/1-1/power", json={"action": "off"}), 501) == bus.refusal
        assert "it is off, on or cycle" in refused(client.post(f"{API}/devices/1-1/power", json={"action": "x"}), 400)


def test_who_only_looks_changes_nothing() -> None:
    with dashboard() as (server, made), asking(made, LOOK) as client:
        device = attach(server)
        number = next(found.number for found in server.clients if found.busid)
        for path in ("export", "disconnect", "reset", "eject", "power"):
            refused(client.post(f"{API}/devices/1-1/{path}", json={"on": False, "action": "off"}), 403)
        for path in ("disconnect", "allow", "deny"):
            refused(client.post(f"{API}/clients/{number}/{path}", json={}), 403)
        assert device.run(READ, 20.0).status == 0
        device.close()


def test_a_client_that_is_denied_loses_its_device_and_may_have_it_again() -> None:
    with dashboard() as (server, made), asking(made) as client:
        device = attach(server)
        lost = losing(device)
        number = next(found.number for found in server.clients if found.busid)
        assert post(client, f"/clients/{number}/deny", device="1-1") == "the rule `deny local 1-1` is in force"
        wait_until("it has lost the device", lambda: lost)
        device.close()
        with pytest.raises(ImportRefused):
            attach(server)
        assert [str(rule) for rule in server.access.rules] == ["deny local 1-1"]
        assert read_server_table().rules == ("deny local 1-1",)
        with socket.create_connection(server.addresses[0], 20) as sock:
            port = sock.getsockname()[1]
            found = wait_until("it is connected", lambda: [one for one in server.clients if one.peer.port == port])
            number = found[0].number
            assert post(client, f"/clients/{number}/allow", device="1-1") == "the rule `allow local 1-1` is in force"
        assert read_server_table().rules == ("allow local 1-1",)
        attach(server).close()


@pytest.mark.parametrize(
    ("peer", "pattern"),
    [
        (Peer(), "local"),
        (Peer("127.0.0.1", 5, "127.0.0.1"), "local"),
        (Peer("192.0.2.7", 5, "192.0.2.1"), "192.0.2.7"),
        (Peer("fe80::1%eth0", 5, "fe80::2%eth0"), "fe80::1"),
        (Peer("192.0.2.7", 5, "192.0.2.1", "paired:ann's laptop"), "paired:ann's laptop"),
    ],
    ids=str,
)
def test_who_a_rule_is_for(peer: Peer, pattern: str) -> None:
    assert str(pattern_of(peer)) == pattern


def test_strings_of_devices_are_what_they_are() -> None:
    bus = FakeBus()
    plugged = bus.plug("1-1", serial="<img src=x onerror=alert(1)>")
    plugged.product = "</script>\x1b[31m\u202e\ud800"
    with dashboard(bus=bus) as (_, made), asking(made, LOOK) as client:
        shown = get(client, "/devices/1-1")
        assert (shown["serial"], shown["hub"]) == ("<img src=x onerror=alert(1)>", False)
        assert client.get("/metrics").status_code == 200
