"""Commands for a running server, as they are typed: `status`, `clients`, `kick`, `reset`, `power`, `bind`, `unbind`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import usb.core

from tests.fakes.local_bus import OpenedDevice, SwitchableBus
from tests.waiting import wait_until
from usbip_capture import LocalServer, get_backend, serve
from usbip_capture.cli import exits
from usbip_capture.cli.main import main
from usbip_capture.cli.serving_view import ServingView
from usbip_capture.control_socket.asking import running
from usbip_capture.devices.uses import DISK, Use
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.serving import ports
from usbip_capture.usb.status import EPIPE
from usbip_capture.usb.urb import Completion

ANY = "127.0.0.1:0"


@pytest.fixture
def bus() -> SwitchableBus:
    made = SwitchableBus()
    made.plug("1-1")
    return made


@pytest.fixture
def server(bus: SwitchableBus) -> Iterator[LocalServer]:
    with serve(["1-1"], listen=ANY, name="bench", bus=bus) as made:
        yield made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def ran(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


Run = Callable[..., tuple[int, str, str]]


@contextmanager
def attached(server: LocalServer, busid: str = "1-1") -> Iterator[None]:
    """Somebody has the device, and has asked it for its descriptor."""
    with get_backend(*server.addresses[0]) as backend:
        device = usb.core.find(backend=backend)
        assert isinstance(device, usb.core.Device)
        assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
        assert [client.busid for client in server.clients if client.busid] == [busid]
        yield


def test_what_is_exported_and_who_has_it(server: LocalServer, run: Run) -> None:
    code, said, _ = run("status")
    assert code == 0
    assert said.splitlines() == [
        f"bench (process {os.getpid()}) at {server.address}",
        "exports, by its command line: 1-1",
        "access: closed, without rules",
        "  1-1  303a:4001  Demo device  free",
    ]
    with attached(server):
        client = next(str(client.peer) for client in server.clients if client.busid)
        assert run("status")[1].splitlines()[-1].endswith(f"client {client}")
        found = json.loads(run("status", "--json")[1])
        assert found["devices"][0]["client"] == client
        assert found["addresses"] == [server.address]


def test_a_server_with_a_unix_socket(bus: SwitchableBus, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for listen, places in ((), [str(path)]), (ANY, [ANY, str(path)]):
        with serve(["1-1"], listen=listen, unix=os.path.relpath(path), name="bench", bus=bus) as server:
            where = ", ".join(server.address if place == ANY else place for place in places)
            assert run("status")[1].splitlines()[0] == f"bench (process {os.getpid()}) at {where}"
            assert json.loads(run("status", "--json")[1])["unix"] == server.unix == str(path)
            view = ServingView(server)
            shown: list[str] = []
            view.put = lambda title, *_, shown=shown: shown.append(title)  # type: ignore[method-assign]
            view.show(0.0)
            assert shown == [f"1 device at {where}, 0 clients"]


def test_who_is_connected(server: LocalServer, run: Run) -> None:
    assert run("clients") == (0, "", "usbip-capture: nobody is connected\n")
    assert json.loads(run("clients", "--json")[1]) == []
    with attached(server):
        _, said, _ = run("clients", "--server", "bench")
        title, row = said.splitlines()
        assert title.split() == ["client", "device", "attached", "URBs", "bytes", "product"]
        assert "1-1" in row
        assert row.endswith("Demo device")
        (client,) = json.loads(run("clients", "--json")[1])
        assert (client["busid"], client["vid_pid"]) == ("1-1", "303a:4001")
        assert client["urbs"] >= 1
        assert client["bytes"] >= 18


def test_a_client_is_kicked(server: LocalServer, bus: SwitchableBus, run: Run) -> None:
    with attached(server):
        assert run("kick", "1-1") == (0, "the client of 1-1 is disconnected\n", "")
        assert bus.plugged["1-1"].opened[-1].released.wait(20)
        wait_until("it is gone", lambda: not server.clients)
    assert run("kick", "1-1") == (exits.DEVICE, "", "usbip-capture: nobody has 1-1\n")
    code, _, said = run("kick", "1-9\x1b")
    assert (code, said) == (exits.DEVICE, "usbip-capture: '1-9\\x1b' is not exported: there is 1-1\n")
    with attached(server):  # the next one may have it
        pass


def test_a_device_is_reset_in_use_or_not(server: LocalServer, bus: SwitchableBus, run: Run) -> None:
    assert run("reset", "1-1") == (0, "1-1 was reset\n", "")
    opened = bus.plugged["1-1"].opened
    assert [device.port_resets for device in opened] == [1]
    assert opened[0].released.is_set()
    with attached(server):
        assert run("reset", "1-1")[0] == 0
        assert [device.port_resets for device in opened] == [1, 1]
        assert not opened[1].released.is_set()
    assert run("reset", "1-2")[0] == exits.DEVICE


def test_a_mounted_disk_is_not_reset(
    server: LocalServer, bus: SwitchableBus, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For that its driver is unbound, and what is mounted is lost."""
    monkeypatch.setattr(ports, "uses", lambda sysfs: [Use(DISK, "sda", "the disk sda1, mounted at /mnt", True)])
    code, _, said = run("reset", "1-1")
    assert code == exits.FAILED
    assert "device 1-1 (303a:4001) is the disk sda1, mounted at /mnt" in said
    assert "unmount it first" in said
    assert not bus.plugged["1-1"].opened
    with attached(server):  # it is not this machine's then
        assert run("reset", "1-1")[0] == 0


def test_a_reset_that_fails_is_a_sentence(server: LocalServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenedDevice, "submit", lambda self, transfer: transfer.finish(Completion(-EPIPE)))
    code, _, said = run("reset", "1-1")
    assert code == exits.FAILED
    assert "device 1-1 (303a:4001) cannot be reset" in said


def test_the_power_of_a_port(
    server: LocalServer, bus: SwitchableBus, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "OFF_TIME", 0.0)
    assert run("power", "1-1", "off") == (0, "the port 1-1 has no power\n", "")
    wait_until("it is not exported", lambda: not server.devices)
    assert run("power", "1-1", "on") == (0, "the port 1-1 has power\n", "")
    wait_until("it is back", lambda: server.devices)
    assert bus.switched == [("1-1", False), ("1-1", True)]
    assert run("power", "1-1", "cycle")[1] == "the port 1-1 has power again\n"
    assert bus.switched[2:] == [("1-1", False), ("1-1", True)]


def test_the_end_of_the_server_leaves_no_port_off(bus: SwitchableBus, monkeypatch: pytest.MonkeyPatch) -> None:
    off = threading.Event()
    switch = bus.switch_power

    def switched(busid: str, on: bool) -> None:
        switch(busid, on)
        off.set()

    monkeypatch.setattr(bus, "switch_power", switched)
    monkeypatch.setattr(ports, "OFF_TIME", 3600.0)
    with serve(["1-1"], listen=ANY, name="bench", bus=bus):
        asking = threading.Thread(target=running()[0].call, args=("power",), kwargs={"busid": "1-1", "action": "cycle"})
        asking.start()
        assert off.wait(20)
    asking.join(20)
    assert bus.switched == [("1-1", False), ("1-1", True)]


def test_the_power_of_what_is_not_ours_stays(server: LocalServer, bus: SwitchableBus, run: Run) -> None:
    bus.plug("1-2")
    for action in ("off", "cycle"):
        assert run("power", "1-2", action)[0] == exits.DEVICE
    assert bus.switched == []
    bus.refusal = "the hub 1-1 cannot switch the power of its port 4: it switches all its ports together"
    assert run("power", "1-1", "off") == (exits.FAILED, "", f"usbip-capture: {bus.refusal}\n")
    assert run("power", "1-1", "up")[0] == exits.USAGE


def test_rules_are_written_and_a_running_server_follows(bus: SwitchableBus, run: Run) -> None:
    bus.plug("1-2", (0x0403, 0x6001))
    path = configuration_path()
    Path(path).parent.mkdir(parents=True)
    Path(path).write_text("[server]  # mine\nexports = []\n")
    with serve(listen=ANY, name="bench", bus=bus) as server:
        code, said, _ = run("bind", "1-1", "0403:6001")
        assert (code, said.splitlines()) == (0, [
            f"1-1 is to be exported, in {path}",
            f"0403:6001 is to be exported, in {path}",
            "the server bench exports now: 1-1 Demo device, 1-2 Demo device",
        ])  # fmt: skip
        assert [info.busid for info in server.devices] == ["1-1", "1-2"]
        assert run("bind", "1-1")[1].startswith("1-1 is already to be exported")
        assert run("unbind", "1-1", "class:09")[0] == exits.USAGE  # which cannot be a rule
        assert run("unbind", "1-1")[1].splitlines()[0] == f"1-1 is not to be exported, in {path}"
        assert [info.busid for info in server.devices] == ["1-2"]
    assert Path(path).read_text() == '[server]  # mine\nexports = ["0403:6001"]\n'


def test_without_a_server_only_the_file_is_written(run: Run) -> None:
    code, said, _ = run("bind", "303a:4001:A B")
    assert code == 0
    assert said.splitlines()[-1] == "no server of yours is running: it holds from the next `usbip-capture serve` on"
    assert Path(configuration_path()).read_text() == '[server]\nexports = ["303a:4001:A B"]\n'
    assert run("bind", "1-1", "--server", "bench")[0] == exits.NOT_RUNNING
    assert run("unbind", "class:03")[1].startswith("class:03 is already not to be exported")


def test_a_server_with_rules_of_its_own_takes_them_too(server: LocalServer, bus: SwitchableBus, run: Run) -> None:
    bus.plug("1-2")
    assert run("bind", "1-2")[1].splitlines()[-1].startswith("the server bench exports now: 1-1 Demo device, 1-2")
    assert run("unbind", "1-1")[1].splitlines()[-1].startswith("the server bench exports now: 1-2")
    with serve(["1-1"], listen=ANY, name="other", bus=SwitchableBus()) as other:
        said = run("bind", "1-1")[1]
        assert "the server bench exports by its command line; with --server bench it follows" in said
        assert run("unbind", "1-1", "--server", "other")[1].endswith("exports now: nothing that is plugged in\n")
        assert (server.rules, other.rules) == (["1-2"], [])


def test_a_damaged_file_keeps_what_was_exported(bus: SwitchableBus, run: Run) -> None:
    run("bind", "1-1")
    with serve(listen=ANY, name="bench", bus=bus) as server:
        Path(configuration_path()).write_text("[server]\nexports = [\n")
        code, said, complaint = run("bind", "1-2")
        assert (code, said) == (exits.FAILED, "")
        assert "line" in complaint
        assert [info.busid for info in server.devices] == ["1-1"]


@pytest.mark.parametrize(
    "command", [["status"], ["clients"], ["kick", "1-1"], ["reset", "1-1"], ["power", "1-1", "off"]], ids=" ".join
)
def test_none_is_running(command: list[str], run: Run) -> None:
    code, said, complaint = run(*command)
    assert (code, said) == (exits.NOT_RUNNING, "")
    assert complaint == "usbip-capture: no server of yours is running: start one with `usbip-capture serve`\n"


def test_several_servers(server: LocalServer, bus: SwitchableBus, run: Run) -> None:
    with serve(["1-1"], listen=ANY, name="bench", bus=SwitchableBus()) as other:
        code, _, said = run("clients")
        assert code == exits.USAGE
        assert f"name one with --server: bench ({server.address}), bench-2 ({other.address})" in said
        _, stated, _ = run("status", "--server", other.address)
        assert stated.startswith(f"bench (--server bench-2, process {os.getpid()}) at {other.address}\n")
        assert run("status", "--server", "bench")[1].startswith(f"bench (process {os.getpid()}) at {server.address}\n")
        assert run("status", "--server", "rack")[0] == exits.NOT_RUNNING


def test_many_commands_at_once(server: LocalServer) -> None:
    found: list[object] = []

    def ask() -> None:
        for control in running():
            found.append(control.call("status")["name"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["bench"] * 8


def test_a_server_that_cannot_take_commands_lends_all_the_same(
    bus: SwitchableBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with serve(["1-1"], listen=ANY, bus=bus) as server, attached(server):
        assert "commands for this server cannot be taken: Not a directory" in caplog.text
