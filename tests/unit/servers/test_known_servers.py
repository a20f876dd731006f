"""Known servers: where they come from, what their interfaces are called, and a cache that nothing can break."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from usbip_capture.servers import known, memory
from usbip_capture.servers.configuration import configured
from usbip_capture.servers.known import KnownDevice, find_interface, known_servers, read_cache
from usbip_capture.system.folders import cache_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("USBIP_CAPTURE_SERVERS", raising=False)
    return tmp_path


def configure(home: Path, text: str) -> None:
    folder = home / "config/usbip-capture"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)


def test_all_sources_each_server_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "pi, Rack 1=192.0.2.10:3241 ,[fe80::1]:3240")
    configure(home, '# mine\n\n[servers]\nlab = "lab.example" # the big one\n')
    memory.remember_server("pi", 3240)
    memory.remember_server("192.0.2.20", 3240, "esp32", "mdns")
    found = [(s.interface, s.display, s.source) for s in known_servers()]
    assert found == [
        ("usbip-pi", "USB/IP remote: pi:3240", "environment"),
        ("usbip-rack-1", "USB/IP remote: Rack 1 (192.0.2.10:3241)", "environment"),
        ("usbip-fe80--1", "USB/IP remote: [fe80::1]:3240", "environment"),
        ("usbip-lab", "USB/IP remote: lab (lab.example:3240)", "configuration"),
        ("usbip-esp32", "USB/IP remote: esp32 (192.0.2.20:3240)", "mdns"),
    ]
    server = find_interface("usbip-rack-1")
    assert server is not None
    assert (server.host, server.port) == ("192.0.2.10", 3241)
    assert find_interface("usbip-nobody") is None


def test_of_many_16_are_listed_and_all_are_known(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wireshark asks about each at each start."""
    dashboards = "".join(f'd{n} = "http://pi{n}"\n' for n in range(100))
    servers = "".join(f'p{n} = "pi{n}"\n' for n in range(200))
    configure(home, f"[servers]\n{servers}\n[dashboards]\n{dashboards}")
    names = [server.interface for server in known.listed(known.all_known())]
    assert names == [f"usbip-p{n}" for n in range(8)] + [f"usbip-server-d{n}" for n in range(8)]
    assert [server.interface for server in known.listed(known.all_known(), 16)] == [
        *(f"usbip-p{n}" for n in range(4)), *(f"usbip-server-d{n}" for n in range(4))
    ]  # fmt: skip
    assert len(known_servers()) == 200
    assert find_interface("usbip-p199")
    configure(home, f"[servers]\n{servers}")
    assert [server.interface for server in known.listed(known.all_known(), 3)] == [f"usbip-p{n}" for n in range(13)]
    configure(home, '[servers]\na = "a"\n')
    assert len(known.listed(known.all_known(), 16)) == 1


NAMES = {
    "remote": "usbip-remote-",  # that one is there already
    "a-b,a.b": "usbip-a-b usbip-a.b-",  # the same preferences
    "usbip-esp32p4.local": "usbip-esp32p4.local",
    "pi:3241": "usbip-pi-3241",
    "M\u00fcller=pi": "usbip-m-ller",
    "\u6771\u4eac=pi": "usbip-server",
    "x" * 80: "usbip-" + "x" * 40,
}


@pytest.mark.parametrize(("servers", "names"), NAMES.items())
def test_names_are_few_characters_and_never_the_same(monkeypatch: pytest.MonkeyPatch, servers: str, names: str) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", servers)
    found = [server.interface for server in known_servers()]
    for name, wanted in zip(found, names.split(), strict=True):
        assert name.startswith(wanted)
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    keys = {known.preference(name) for name in [*found, "usbip-remote"]}
    assert len(keys) == len(found) + 1
    assert [server.interface for server in known_servers()] == found


@pytest.mark.parametrize("entry", ["", " , ,", "two words", "a/b", "pi:port", "[fe80::1", "pi:99999", "=", "name=",
                                   "pi:0", "p\x01i", "p\ufffdi", "<pi>"])  # fmt: skip
def test_entries_that_are_no_address(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", entry)
    assert known_servers() == []
    assert any(server.problem for server in configured()) == bool(entry.strip(" ,"))


def test_devices_keep_their_names() -> None:
    memory.remember_server("pi", 3240)
    memory.remember_devices("pi", 3240, [KnownDevice("1-1", "303a:4004"), KnownDevice("1-2", "1209:0001", "HID")])
    memory.remember_product("pi", 3240, "1-1", "303a:4004", "ESP\tbridge\n2")
    memory.remember_devices("pi", 3240, [KnownDevice("1-1", "303a:4004"), KnownDevice("1-2", "ffff:0001")])
    devices = read_cache().devices["pi", 3240]
    assert [(d.busid, d.vid_pid, d.name) for d in devices] == [
        ("1-1", "303a:4004", "ESP bridge 2"),
        ("1-2", "ffff:0001", ""),
    ]


def test_at_most_16_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000
    for number in range(20):
        monkeypatch.setattr(time, "time", lambda n=number: now + n)
        memory.remember_server(f"host{number}", 3240)
    hosts = {host for host, _ in read_cache().servers}
    assert hosts == {f"host{number}" for number in range(4, 20)}
    monkeypatch.setattr(time, "time", lambda: now + memory.MAX_AGE + 10)
    memory.remember_server("new", 3240)
    assert {host for host, _ in read_cache().servers} == {"new", *(f"host{n}" for n in range(11, 20)), "host10"}


def test_an_announced_server_may_move() -> None:
    memory.remember_server("192.0.2.1", 3240, "esp", "mdns")
    memory.remember_server("192.0.2.2", 3240, "esp", "mdns")
    assert list(read_cache().servers) == [("192.0.2.2", 3240)]


def test_a_server_from_the_future_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000
    for moment in (now + 10 * memory.MAX_AGE, now, now + memory.MAX_AGE + 10):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        memory.remember_server(f"host{moment}", 3240)
    assert {host for host, _ in read_cache().servers} == {f"host{now + memory.MAX_AGE + 10}"}


DAMAGED = [
    b"", b"\0" * 100, b"\xff\xfe" * 50, b"x" * 10**6, b"server\n", b"server\tpi\t3240\tused\t\t1\n" * 3,
    b"server\tpi\t0\tused\t\t1\n", b"server\t\t3240\tused\t\t1\n", b"server\tpi\tmany\tused\t\t1\n",
    b"device\tpi\t3240\t1-1 303a:4004\tx\t1\n", b"server\tpi\t" + b"9" * 5000 + b"\tused\t\t1\n",
    "server\tpi\t\u00b2\tused\t\t1\n".encode(),
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_cache_is_read_as_far_as_it_makes_sense(home: Path, content: bytes) -> None:
    path = home / "cache/usbip-capture/servers"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert len(known_servers()) <= 1
    memory.remember_server("new", 3240)
    assert ("new", 3240) in read_cache().servers


def test_a_cache_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    memory.remember_server("pi", 3240)
    memory.remember_devices("pi", 3240, [])
    assert known_servers() == []


def _remember(number: int) -> None:
    for turn in range(5):
        memory.remember_server(f"host{number}", 3240)
        memory.remember_product(f"host{number}", 3240, f"1-{turn}", "303a:4004", "x")


def test_several_programs_at_once() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        pool.map(_remember, range(4))
    assert {host for host, _ in read_cache().servers} == {f"host{number}" for number in range(4)}
    assert [len(devices) for devices in read_cache().devices.values()] == [5] * 4
    left = [name for name in os.listdir(cache_folder()) if name.startswith(".")]
    assert left == []


def test_everything_is_forgotten(home: Path) -> None:
    memory.remember_server("pi", 3240)
    memory.forget_everything()
    assert not (home / "cache/usbip-capture").exists()


def test_a_device_in_use_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.remember_server("pi", 3240)
    memory.remember_product("pi", 3240, "1-1", "1209:0001", "Thing")
    memory.remember_devices("pi", 3240, [KnownDevice("1-2", "1209:0002")])
    memory.remember_devices("pi", 3240, [KnownDevice("1-1", "1209:0001")])
    assert [(d.busid, d.name) for d in read_cache().devices["pi", 3240]] == [("1-1", "Thing")]
    memory.remember_devices("pi", 3240, [])
    monkeypatch.setattr(memory, "_MISSING", 0)
    memory.remember_devices("pi", 3240, [])
    assert not read_cache().devices.get(("pi", 3240))


def test_one_hostile_list_makes_no_other_server_forgotten() -> None:
    for number in range(15):
        memory.remember_server(f"10.0.0.{number}", 3240, f"server {number}")
        memory.remember_devices(f"10.0.0.{number}", 3240, [KnownDevice("1-1", "1209:0001", "Thing")])
    memory.remember_server("10.9.9.9", 3240)
    memory.remember_devices(
        "10.9.9.9", 3240, [KnownDevice(f"evil-{n:026d}", "1209:0001", "x" * 500) for n in range(4096)]
    )
    memory.remember_server("10.0.0.0", 3240, "server 0")
    cache = read_cache()
    assert len(cache.servers) == 16
    assert all(cache.devices[f"10.0.0.{number}", 3240][0].name == "Thing" for number in range(15))
    assert len(cache.devices["10.9.9.9", 3240]) == memory.MAX_DEVICES


def test_no_more_is_written_than_is_read() -> None:
    for number in range(16):
        host = f"10.0.0.{number}"
        memory.remember_server(host, 3240, "\u6f22" * 1000)
        busids = [f"evil-{number}-{n}" for n in range(memory.MAX_DEVICES)]
        memory.remember_devices(host, 3240, [KnownDevice(busid, "1209:0001", "\u6f22" * 1000) for busid in busids])
        memory.remember_product(host, 3240, "1-1", "1209:0001", "\u6f22" * 1000)
    path = Path(cache_folder()) / known.CACHE_FILE
    assert known.MAX_BYTES // 2 < path.stat().st_size <= known.MAX_BYTES
    assert len(read_cache().servers) == 16


def test_imports_of_ever_other_devices_are_bounded() -> None:
    memory.remember_server("10.0.0.1", 3240)
    for number in range(memory.MAX_DEVICES + 10):
        memory.remember_product("10.0.0.1", 3240, f"1-{number}", "1209:0001")
    devices = read_cache().devices["10.0.0.1", 3240]
    assert [device.busid for device in devices] == [f"1-{n}" for n in range(10, memory.MAX_DEVICES + 10)]


def test_announcements_push_out_no_more_than_half() -> None:
    for number in range(16):
        memory.remember_server(f"10.0.0.{number}", 3240)
    for number in range(100):
        memory.remember_server(f"10.6.6.{number}", 3240, f"evil {number}", "mdns")
    sources = [server.source for server in read_cache().servers.values()]
    assert (sources.count("used"), sources.count("mdns")) == (8, 8)
