"""The mode and the rules of access in the configuration file: changed alone, and never more open for a missing end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from usbip_capture.access.clients import Requester
from usbip_capture.access.rules import AccessRule, AccessRules
from usbip_capture.configuration.access import add_rules, remove_rules, set_mode
from usbip_capture.errors import FileFormatError, UsbipError
from usbip_capture.servers.server_table import parse_server_table
from usbip_capture.serving.rules_in_force import rules_of
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

OWN = """\
# my servers
[servers]
bench = "192.0.2.10"

[server]  # what I lend
exports = ["1-1.4"]  # the board
max-clients = 3
"""
CLIENTS = [Requester.of(host) for host in ("192.0.2.7", "192.0.2.8", "198.51.100.1", "2001:db8::7")]
CLIENTS += [Requester.of("198.51.100.1", "", identity) for identity in ("paired:ann", "cert:Ann Smith")]
DEVICES = [
    (DeviceInfo(busid, 1, 2, Speed.HIGH, 0x303A, 0x4001, interfaces=(InterfaceInfo(3, 0, 0),)), serial)
    for busid in ("1-1", "1-2")
    for serial in ("", "A B")
]


def rules(*texts: str) -> list[AccessRule]:
    return [AccessRule.parse(text) for text in texts]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "config.toml"
    made.write_text(OWN)
    return made


def read(path: Path) -> AccessRules:
    return rules_of(parse_server_table(path.read_bytes(), str(path)))


def test_rules_and_mode_are_written_and_removed_and_all_else_stays(path: Path) -> None:
    first, second = rules('allow "cert:Ann Smith" 1-1', "deny 192.0.2.7 303a:4001:A B")
    assert add_rules(str(path), [first, first]) == [first]
    assert set_mode(str(path), "open")
    assert add_rules(str(path), [first, second]) == [second]
    assert read(path) == AccessRules("open", [first, second])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not set_mode(str(path), "open")
    assert set_mode(str(path), "closed")
    assert remove_rules(str(path), [second, *rules("allow any")]) == [second]
    assert read(path) == AccessRules("closed", [first])
    assert remove_rules(str(path), [first]) == [first]
    kept = path.read_text().replace('rules = []\naccess = "closed"\n', "")
    assert kept == OWN


def test_a_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "config.toml"
    assert set_mode(str(path), "open")
    assert path.read_text() == '[server]\naccess = "open"\n'
    add_rules(str(path), rules("deny 192.0.2.7"))
    assert path.read_text() == '[server]\nrules = ["deny 192.0.2.7 all"]\naccess = "open"\n'
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("access = 'open'  # so far", 'access = "closed"  # so far'),
        ("allow-public = true # x", 'access = "closed"\nallow-public = false # x'),
        ("rules = [\n  'allow any',  # mine\n]\nname = \"x\"", None),
        ("rules = []\r\nallow = ['192.0.2.0/24']\r", "rules = []\r\naccess = \"closed\"\r\nallow = ['192.0.2.0/24']\r"),
    ],
)
def test_closing(before: str, after: str | None, path: Path) -> None:
    path.write_bytes(f"[server]\n{before}\n[other]\naccess = 1\n".encode())
    set_mode(str(path), "closed")
    assert read(path).mode == "closed"
    if after is not None:
        assert path.read_bytes() == f"[server]\n{after}\n[other]\naccess = 1\n".encode()


def test_a_network_of_the_short_form_is_removed_as_the_rule_that_it_is(path: Path) -> None:
    path.write_text('[server]\nallow = ["192.0.2.9/24", "198.51.100.0/24, 203.0.113.0/24"]\n')
    assert remove_rules(str(path), rules("allow 192.0.2.0/24", "allow 203.0.113.0/24")) == rules("allow 192.0.2.0/24")
    assert path.read_text() == '[server]\nallow = ["198.51.100.0/24, 203.0.113.0/24"]\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[server]\nname = "x"\nrules = [\n  "allow any",\n  "permit any",\n]', 5),
        ('[server]\nrules = ["allow 192.0.2.300"]', 2),
        ('[server]\nrules = ["allow any",\n "deny \\u0070i"]', 2),
        ('[server]\naccess = "public"', 2),
        ('[server]\naccess = ""', 2),
        ('[server]\naccess = true', 2),
        ('[server]\nname = "x"\naccess = "open"\nrules = []', 3),
        ('[server]\nallow = ["192.0.2.0/24"]\nrules = ["deny 192.0.2.7"]', 2),
        ('[server]\nallow-public = true\nrules = []', 2),
        ('[server]\naccess = "closed"\nallow-public = true', 3),
        ('[server]\nrules = ["allow any"', 2),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, line: int, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(FileFormatError, match=f"line {line}") as refused:
        parse_server_table(path.read_bytes(), str(path))
    assert str(path) in str(refused.value)
    for change in (lambda: add_rules(str(path), rules("allow any 1-9")), lambda: set_mode(str(path), "closed")):
        with pytest.raises(UsbipError):
            change()
    assert path.read_text() == text


def made_by_us(path: Path) -> str:
    add_rules(str(path), rules("allow any 1-1"))
    set_mode(str(path), "open")
    add_rules(
        str(path),
        rules(
            "deny 192.0.2.7 1-2", "deny 198.51.100.0/24", "deny paired:ann 1-1", 'deny "cert:Ann Smith" 303a:4001:A B'
        ),
    )
    return path.read_text()


def by_hand(path: Path) -> str:
    return """\
allow = 1
[server]
exports = ["all"]
rules = [
  "deny 192.0.2.7 1-1",  # "not he"
  "allow 2001:db8::/32",
  "deny 2001:db8::7 class:03",
]
allow = ["192.0.2.0/24"]
access = "closed"
listen = ["0.0.0.0:3240"]
"""


def public(path: Path) -> str:
    return '[server]\nrules = ["deny 192.0.2.7 all"]\nmax-clients = 10\nallow-public = true\nexports = ["all"]\n'


@pytest.mark.parametrize("make", [made_by_us, by_hand, public])
def test_a_file_that_is_cut_anywhere_lets_in_nobody_else(make: object, path: Path) -> None:
    assert callable(make)
    whole = make(path).encode()
    full = rules_of(parse_server_table(whole, str(path)))
    read_well = 0
    for length in range(len(whole)):
        try:
            cut = rules_of(parse_server_table(whole[:length], str(path)))
        except UsbipError:
            continue
        read_well += 1
        for requester in CLIENTS:
            assert cut.connecting(requester).allowed <= full.connecting(requester).allowed, whole[:length]
            for device in DEVICES:
                assert cut.deciding(requester, *device).allowed <= full.deciding(requester, *device).allowed
    assert read_well > 5
