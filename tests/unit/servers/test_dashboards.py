"""Dashboards of servers by name or address: where they are, what Wireshark lists, and which token goes to which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.extcap import dialog, queries
from usbip_capture.options.table import OPTIONS
from usbip_capture.servers import memory
from usbip_capture.servers.announcing import FurtherPorts, txt_record
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.dashboards import TOKEN_VARIABLE, Dashboard
from usbip_capture.servers.known import find_interface, known_dashboards, known_servers
from usbip_capture.servers.mdns import DiscoveredServer

#: One that nobody checks.
ANY = "x"
GIVEN = "given"

FILE = """\
[servers]
rack = "192.0.2.7:3241"
safe = "tls://[2001:db8::1]:3250"
pi = "ssh://me@pi"

[dashboards]
bench = "https://bench.example.org:8443"
bad = "ftp://x"

[tokens]
bench = "of-bench"
rack = "of-rack"
safe = "of-safe"
pi = "of-pi"
"http://192.0.2.9:8080" = "of-9"
evil = "of-evil"
"""


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    monkeypatch.delenv("USBIP_CAPTURE_SERVERS", raising=False)
    monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", "off")
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    path = Path(configuration_path())
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text(FILE)


@pytest.mark.parametrize(
    ("text", "address", "token"),
    [
        ("bench", "https://bench.example.org:8443", "of-bench"),
        (" BENCH ", "https://bench.example.org:8443", "of-bench"),
        ("rack", "http://192.0.2.7:8080", "of-rack"),
        ("safe", "https://[2001:db8::1]:8080", "of-safe"),
        ("pi", "ssh://me@pi/8080", "of-pi"),
        ("192.0.2.9", "http://192.0.2.9:8080", "of-9"),
        ("http://192.0.2.9:8080/", "http://192.0.2.9:8080", "of-9"),
    ],
)
def test_names_addresses_and_their_tokens(text: str, address: str, token: str) -> None:
    found = Dashboard.parse(text)
    assert (found.address, found.token) == (address, token)


@pytest.mark.parametrize(
    ("text", "address", "header"),
    [
        ("pi:81", "http://pi:81", "pi:81"),
        ("HTTPS://pi", "https://pi:8080", "pi:8080"),
        ("[fe80::1%eth0]:81", "http://[fe80::1%eth0]:81", "[fe80::1]:81"),
        ("ssh://me@pi:2222/81", "ssh://me@pi:2222/81", "127.0.0.1:81"),
        ("ssh://pi", "ssh://pi/8080", "127.0.0.1:8080"),
    ],
)
def test_an_address_is_what_it_prints(text: str, address: str, header: str) -> None:
    found = Dashboard.parse(text, token=ANY)
    assert (found.address, found.host_header) == (address, header)
    assert Dashboard.parse(address, token=ANY) == found


@pytest.mark.parametrize("text", ["", "ftp://pi", "http://", "http://pi/x", "http://me@pi", "http://-x", "pi:0", "a b"])
def test_what_is_not_an_address(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        Dashboard.parse(text, token=ANY)


def test_a_port_that_is_given_apart_and_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "of-environment")
    found = Dashboard.parse("pi.local", 81)
    assert (found.address, found.token) == ("http://pi.local:81", "of-environment")
    assert Dashboard.parse("bench", token=GIVEN).token == GIVEN


def test_a_token_is_not_sent_to_who_announces_its_name() -> None:
    memory.remember_server("http://192.0.2.66", 8080, "evil", "mdns")
    memory.remember_server("http://192.0.2.9", 8080, "good", "mdns")
    with pytest.raises(UsbipError, match=r"no token is known for http://192\.0\.2\.66"):
        Dashboard.parse("evil")
    evil, good = (find_interface(f"usbip-server-{name}") for name in ("evil", "good"))
    assert evil is not None
    assert good is not None
    with pytest.raises(UsbipError, match="no token is known"):
        Dashboard.known(evil)
    assert Dashboard.known(good).token == Dashboard.parse("good").token == "of-9"


@pytest.mark.parametrize("token", ["a b", "a\nHost: x", "\u00e9"])
def test_a_token_that_would_break_a_request(token: str) -> None:
    with pytest.raises(LocalProtocolError, match="the token has characters"):
        Dashboard.parse("pi", token=token)


@pytest.mark.parametrize(
    ("further", "dashboards"),
    [
        (FurtherPorts(), []),
        (FurtherPorts(web=8080), [("http://192.0.2.1", 8080)]),
        (FurtherPorts(3241, 8443, is_secure=True), [("https://192.0.2.1", 8443)]),
    ],
)
def test_what_is_announced(further: FurtherPorts, dashboards: list[tuple[str, int]]) -> None:
    found = DiscoveredServer("Rack", "192.0.2.1", 3240, properties=txt_record([], further))
    assert found.dashboards == dashboards
    assert ("192.0.2.1", 3240) in found.places


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "123456", "\u0663"])
def test_a_port_that_is_announced_and_is_not_one(port: str) -> None:
    assert DiscoveredServer("Rack", "fe80::1", 3240, properties={"web": port}).dashboards == []


def test_wireshark_lists_them_beside_servers() -> None:
    memory.remember_server("192.0.2.66", 3240, "lab", "mdns")
    memory.remember_server("http://192.0.2.66", 8080, "lab", "mdns")
    text, wrong = queries.answer(["--extcap-interfaces"]) or ("", "none")
    assert not wrong
    shown = dict(re.findall(r"interface \{value=([^}]*)\}\{display=([^}]*)\}", text))
    assert shown["usbip-server-bench"] == "USB/IP server: bench (https://bench.example.org:8443)"
    assert shown["usbip-server-lab"] == "USB/IP server: lab (http://192.0.2.66:8080)"
    assert shown["usbip-lab"] == "USB/IP remote: lab (192.0.2.66:3240)"
    assert {server.name for server in known_dashboards()} == {"bench", "lab"}
    assert {server.name for server in known_servers()} == {"rack", "safe", "pi", "lab"}


def test_its_dialog_has_what_means_something_there() -> None:
    lines = dialog.answer(["--extcap-interface", "usbip-server-bench"])
    calls = {found[1] for line in lines if (found := re.search(r"\{call=--([a-z-]+)\}", line))}
    assert calls == set(dialog.OF_SERVER) <= {option.name for option in OPTIONS}
    assert any("{type=password}" in line for line in lines)


def test_reload_reports_what_went_wrong() -> None:
    arguments = ["--extcap-interface", "usbip-remote", "--extcap-reload-option", "device", "--mode", "server"]
    (first, *_) = dialog.answer([*arguments, "--host", "127.0.0.1:1", "--token", "x"])
    assert "nothing listens on 127.0.0.1 port 1" in first
    (first, *_) = dialog.answer([*arguments, "--host", "127.0.0.1:1"])
    assert "no token is known" in first


def test_a_file_with_more_of_toml_in_it() -> None:
    Path(configuration_path()).write_text(FILE + "\n[other]\nvalue = [1,\n 2]\n")
    assert Dashboard.parse("bench").token == "of-bench"
    assert {server.name for server in known_dashboards()} == {"bench"}
