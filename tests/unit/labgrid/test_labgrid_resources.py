"""labgrid's resources: where a device of a server is, and which device of this machine is meant."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from labgrid import Target

from tests.fakes.local_machine import LocalMachine, local_machine
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import ROOT
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.errors import DeviceNotFound, LocalProtocolError, ServerUnreachable, UsbipError
from usbip_capture.labgrid import NetworkUsbipDevice, UsbipDevice, UsbipDriver, resources
from usbip_capture.labgrid.exporter import UsbipDeviceExport, check
from usbip_capture.labgrid.proposal import proposal
from usbip_capture.servers.address import ServerAddress


def network(host: str, port: int | None = 3240, busid: str = "1-1") -> NetworkUsbipDevice:
    return NetworkUsbipDevice(None, None, host=host, port=port, busid=busid)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalMachine]:
    """With a manager of its own: labgrid has one for the process."""
    monkeypatch.setattr("labgrid.resource.common.ResourceManager.instances", {})
    with local_machine(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("192.0.2.10", 3240, "192.0.2.10"),
        ("192.0.2.10", 41000, "192.0.2.10:41000"),
        ("[2001:db8::1]:3241", 3240, "[2001:db8::1]:3241"),
        ("tls://pi", 3240, "tls://pi"),
        ("ssh://me@pi:2222", 3240, "ssh://me@pi:2222"),
        ("demo", 3240, "demo"),
    ],
)
def test_hosts_are_written_as_everywhere(host: str, port: int, shown: str) -> None:
    assert str(network(host, port).server) == shown


def test_what_is_lent_to_nobody() -> None:
    with pytest.raises(UsbipError, match=r"device 1-1 of lab\\x1b is lent to nobody: acquire its place"):
        _ = network("lab\x1b", None).server


@pytest.mark.parametrize(("host", "shown"), [("lab", "localhost:40001"), ("tls://lab", "tls://lab")])
def test_labgrid_s_proxy_is_for_hosts_without_a_way_of_their_own(
    host: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards = []

    def forward(proxy: str, name: str, port: int) -> int:
        forwards.append((proxy, name, port))
        return 40001

    monkeypatch.setattr("labgrid.util.proxy.sshmanager.request_forward", forward)
    device = network(host)
    device.extra = {"proxy_required": True, "proxy": "bench-pc"}
    assert str(device.server) == shown
    assert forwards == ([("bench-pc", "lab", 3240)] if host == "lab" else [])


@pytest.mark.parametrize("device", ["", " ", 7, "1209:xyz", "serial="])
def test_what_is_not_a_device(device: str) -> None:
    with pytest.raises(LocalProtocolError):
        UsbipDevice(None, None, device=device)


@pytest.mark.parametrize(
    ("device", "busid"),
    [("1-2", "1-2"), ("1209:0001", "1-2"), ("1209:0001:SECOND", "1-3"), ("serial=SECOND", "1-3"), ("1-4", "")],
)
def test_which_device_is_meant(device: str, busid: str, machine: LocalMachine) -> None:
    machine.plug_demo(2, devnum=3, serial="FIRST")
    machine.plug_demo(3, devnum=4, serial="SECOND")
    resource = UsbipDevice(None, None, device=device)
    resource.poll()
    assert (resource.avail, resource.busid) == (bool(busid), busid)
    if busid:
        assert resource.description == f"{busid} (1209:0001) Demo device"
        assert resource.selector.busid == busid


def test_a_device_that_is_lent_may_be_unplugged_for_a_moment(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("usbip_capture.labgrid.resources.monotonic", lambda: now[0])
    machine.plug_demo(2, devnum=3)
    resource = UsbipDevice(None, None, device="1209:0001")
    plugged = LocalBus.shared().devices()
    resource.see(plugged)
    resource.see([])
    assert not resource.avail
    resource.see(plugged)
    resource.lent = True
    resource.see([])
    now[0] += resources.PATIENCE - 1
    resource.see([])
    assert resource.avail
    now[0] += 2
    resource.see([])
    assert not resource.avail
    resource.see(plugged)
    assert resource.avail


def test_a_target_of_its_own(machine: LocalMachine, tmp_path: Path) -> None:
    """Without a coordinator and a server: the device is plugged in where the tests run."""
    machine.plug_demo(2, devnum=3)
    target = Target("main")
    resource = UsbipDevice(target, None, device="1209:0001")
    resource.poll()
    driver = UsbipDriver(target, None, pcap=str(tmp_path / "local.pcapng"))
    target.activate(driver)
    assert driver.find().write(0x04, b"hello") == 5
    target.cleanup()
    assert str(resource.server) == "local"
    sent = [r.usb.data for r in read_capture(tmp_path / "local.pcapng") if r.usb and r.usb.epnum == 0x04]
    assert b"hello" in sent


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    target = Target("main")
    NetworkUsbipDevice(target, None, host="demo", busid="1-7")
    driver = UsbipDriver(target, None)
    target.activate(driver)
    with pytest.raises(DeviceNotFound, match=r"demo exports no device 1-7 .*: it exports 1-1"):
        driver.find()
    target.cleanup()


@pytest.mark.parametrize(
    ("hostname", "given", "host", "proxied"),
    [
        ("localhost", {}, "localhost", False),
        ("bench-pc", {}, "127.0.0.1", True),
        ("bench-pc", {"allow": ["192.0.2.0/24"]}, "bench-pc", False),
    ],
)
def test_an_exported_device(
    hostname: str, given: dict[str, object], host: str, proxied: bool, machine: LocalMachine
) -> None:
    """Where nobody else is allowed, clients come through labgrid's proxy: by ssh, to loopback."""
    machine.plug_demo(2, devnum=3)
    params = {"device": "1209:0001", **given}
    export: Any = UsbipDeviceExport({"cls": "UsbipDevice", "params": params}, host=hostname, proxy="bench-pc")
    export.poll()
    shown = {"host": host, "port": None, "busid": "1-2"}
    extra = {"device": "1-2 (1209:0001) Demo device", "proxy": "bench-pc", "proxy_required": proxied}
    assert (export.cls, export.avail, export.params) == ("NetworkUsbipDevice", True, {**shown, "extra": extra})
    export.acquire("bench")
    port = export.params["port"]
    assert [str(info) for info in ServerAddress("127.0.0.1", port, 20.0).devices()] == ["1-2 (1209:0001)"]
    export.release()
    assert export.params["port"] is None
    with pytest.raises(ServerUnreachable):
        ServerAddress("127.0.0.1", port, 20.0).devices()


@pytest.mark.parametrize(
    ("hostname", "given", "host", "dashboard"),
    [
        ("bench-pc", {"tls": True, "web": "127.0.0.1:0"}, "tls://bench-pc", "ssh://bench-pc.lab/"),
        (
            "2001:db8::1",
            {"tls": True, "listen": "127.0.0.1", "web": "0.0.0.0:0"},
            "tls://[2001:db8::1]",
            "http://[2001:db8::1]:",
        ),
        ("127.0.0.1", {"web": "127.0.0.1:0", "web-tls": True}, "127.0.0.1", "https://127.0.0.1:"),
    ],
)
def test_an_exported_device_has_tls_and_a_dashboard(
    hostname: str, given: dict[str, object], host: str, dashboard: str, machine: LocalMachine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    machine.plug_demo(2, devnum=3)
    params = {"device": "1209:0001", **given}
    export: Any = UsbipDeviceExport({"cls": "UsbipDevice", "params": params}, host=hostname, proxy="bench-pc.lab")
    export.poll()
    assert "dashboard" not in export.params["extra"]
    export.acquire("bench")
    shown = deepcopy(export.params)
    export.release()
    assert shown["host"] == host
    assert not shown["extra"]["proxy_required"]
    assert shown["extra"]["dashboard"].startswith(dashboard)
    assert set(shown["extra"]) == {"device", "dashboard", "proxy", "proxy_required"}  # neither token nor key


def test_a_proposal_is_what_the_exporter_reads(machine: LocalMachine, tmp_path: Path) -> None:
    machine.plug_demo(2, devnum=3, serial="FIRST")
    machine.plug_demo(3, devnum=4, serial="{{ boom }}", product='"evil"\n# {% x %}\x1b')
    machine.plug_demo(4, devnum=5, serial="TWICE")
    machine.plug_demo(5, devnum=6, serial="TWICE")
    devices = LocalBus.shared().devices()
    lines = list(proposal(devices, by_port=False, allow=["192.0.2.0/24"]))
    found = [line.partition(": ")[2] for line in lines if line.startswith("    device")]
    assert found == ['"1209:0001:FIRST"', '"1-3"', '"1-4"', '"1-5"']
    assert lines.count('    allow: ["192.0.2.0/24"]') == 4
    path = tmp_path / "exporter.yaml"
    path.write_text("\n".join(lines))
    check(str(path), {})
    by_port = [line for line in proposal(devices, by_port=True, allow=()) if line.startswith("    ")]
    assert by_port == [f'    device: "1-{port}"' for port in (2, 3, 4, 5)]


def test_the_example_s_configuration_can_be_meant() -> None:
    check(str(ROOT / "docs/labgrid-example/exporter.yaml"), {})
