"""Servers by TLS and ssh: a scheme belongs to the server wherever it is named, remembered or listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.errors import LocalProtocolError
from usbip_capture.extcap import dialog
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.servers import memory
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.configuration import configured
from usbip_capture.servers.known import KnownDevice, known_servers, read_cache
from usbip_capture.servers.mdns import DiscoveredServer
from usbip_capture.servers.patience import TIMEOUT_VARIABLE

CONFIGURATION = """
[servers]
safe = "tls://pi"
odd = "tls://pi:3240"
far = "ssh://me@pi:2222"
other = "ssh://pi/3245"
plain = "pi:3300"
"""


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "usbip-capture").mkdir()
    (tmp_path / "usbip-capture/config.toml").write_text(CONFIGURATION)


@pytest.mark.parametrize(
    ("text", "server", "shown"),
    [
        ("tls://pi", ServerAddress("pi", 3241, scheme="tls"), "tls://pi"),
        ("tls://[::1]:1", ServerAddress("::1", 1, scheme="tls"), "tls://[::1]:1"),
        ("ssh://me@pi:22", ServerAddress("pi", 3240, scheme="ssh", user="me", ssh_port=22), "ssh://me@pi:22"),
        ("ssh://pi/3241", ServerAddress("pi", 3241, scheme="ssh"), "ssh://pi/3241"),
        ("::1", ServerAddress("::1"), "::1"),
    ],
)
def test_an_address_is_what_it_prints(text: str, server: ServerAddress, shown: str) -> None:
    assert ServerAddress.parse(text) == server
    assert str(server) == shown
    assert ServerAddress.parse(shown) == server
    assert ServerAddress.at(*server.place) == server


def test_the_port_that_is_given_apart() -> None:
    assert ServerAddress.parse("tls://pi", 3300).port == 3300
    assert ServerAddress.parse("tls://pi:3301", 3300).port == 3301
    assert ServerAddress.parse("ssh://me@pi:22", 3300) == ServerAddress("pi", 3300, 5.0, "ssh", "me", 22)


@pytest.mark.parametrize("text", ["tls://demo", "ssh://local"])
def test_what_is_built_in_has_no_scheme(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="built in"):
        ServerAddress.parse(text)


def test_what_is_built_in_and_what_is_not() -> None:
    assert ServerAddress.parse("demo").is_built_in
    assert not ServerAddress.parse("tls://pi").is_built_in


@pytest.mark.usefixtures("configuration")
def test_configured_servers() -> None:
    assert [entry.problem for entry in configured()] == [""] * 5
    named = {name: str(ServerAddress.parse(name)) for name in ("safe", "odd", "FAR", "other", "plain")}
    assert named == {
        "safe": "tls://pi", "odd": "tls://pi:3240", "FAR": "ssh://me@pi:2222", "other": "ssh://pi/3245",
        "plain": "pi:3300",
    }  # fmt: skip
    assert ServerAddress.parse("safe", 3400).port == ServerAddress.parse("far", 3400).port == 3400
    assert [(server.interface, server.display) for server in known_servers()] == [
        ("usbip-safe", "USB/IP remote: safe (tls://pi)"),
        ("usbip-odd", "USB/IP remote: odd (tls://pi:3240)"),
        ("usbip-far", "USB/IP remote: far (ssh://me@pi:2222)"),
        ("usbip-other", "USB/IP remote: other (ssh://pi/3245)"),
        ("usbip-plain", "USB/IP remote: plain (pi:3300)"),
    ]


@pytest.mark.parametrize("address", ["ssh://-oX", "tls://a b", "ssh://me:secret@pi", "tls://"])
def test_entries_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", f"x={address}")
    (entry,) = configured()
    assert "is not an address" in entry.problem
    assert known_servers() == []


def test_memory_keeps_ways_apart() -> None:
    """One machine, reached in three ways, is three servers: what may be seen by one is nothing of the others."""
    servers = [ServerAddress.parse(text) for text in ("pi:3241", "tls://pi", "ssh://pi/3241", "ssh://me@pi/3241")]
    for number, server in enumerate(servers):
        memory.remember_server(*server.place)
        memory.remember_devices(*server.place, [KnownDevice(f"1-{number}", "1209:0001")])
        memory.remember_product(*server.place, f"1-{number}", "1209:0001", f"device {number}")
    cache = read_cache()
    for number, server in enumerate(servers):
        (device,) = cache.devices[server.place]
        assert (device.busid, device.name) == (f"1-{number}", f"device {number}")
    found = known_servers()
    assert {ServerAddress.at(known.host, known.port) for known in found} == set(servers)
    assert len({known.interface for known in found}) == 4
    assert {"usbip-pi-3241", "usbip-tls-pi", "usbip-ssh-pi-3241"} <= {known.interface for known in found}


@pytest.mark.usefixtures("configuration")
def test_configured_servers_in_urls_of_serial_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TIMEOUT_VARIABLE)
    assert PortUrl.parse("usbip://safe/1-1").server == ServerAddress.parse("tls://pi")
    assert PortUrl.parse("usbip://far/1-1").server == ServerAddress.parse("ssh://me@pi:2222")


@pytest.mark.usefixtures("configuration")
def test_the_dialog_finds_what_was_listed() -> None:
    for text in ("tls://pi", "ssh://me@pi:2222", "safe", "far", "odd"):
        assert dialog._key(text, 3240) == ServerAddress.parse(text).place


def test_a_server_that_announces_tls() -> None:
    """It is there twice, and stays so when it has got another address."""
    for address in ("192.0.2.1", "192.0.2.2"):
        server = DiscoveredServer("Rack", address, 3240, properties={"tls": "3241"})
        assert server.places == [(address, 3240), (f"tls://{address}", 3241)]
        for place in server.places:
            memory.remember_server(*place, server.name, "mdns")
    found = {known.interface: (known.host, known.port) for known in known_servers()}
    assert found == {"usbip-rack": ("192.0.2.2", 3240), "usbip-tls-rack": ("tls://192.0.2.2", 3241)}


@pytest.mark.parametrize("port", ["", "0", "x", "65536", "-1", "123456", "\u0663"])
def test_a_port_that_is_announced_and_is_not_one(port: str) -> None:
    assert DiscoveredServer("Rack", "fe80::1", 3240, properties={"tls": port}).places == [("fe80::1", 3240)]
    assert DiscoveredServer("Rack", "fe80::1", 1, properties={"tls": "2"}).places[1] == ("tls://[fe80::1]", 2)


def test_a_server_that_others_reach_by_tls_only() -> None:
    """It announces the port of TLS as its port."""
    assert DiscoveredServer("Rack", "192.0.2.1", 3241, properties={"tls": "3241"}).places == [("tls://192.0.2.1", 3241)]
