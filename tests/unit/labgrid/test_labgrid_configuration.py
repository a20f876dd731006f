"""What labgrid's exporter may lend, and to whom, as its configuration has it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.programs.commands import ROOT
from usbip_capture.cli import commands
from usbip_capture.errors import FileFormatError, LocalProtocolError
from usbip_capture.labgrid.exporter import check
from usbip_capture.labgrid.lending import Lending

PAGE = (ROOT / "docs/labgrid.md").read_text()
_parsed = import_module("yaml").safe_load  # without types
BLOCKS = [_parsed(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
KNOWN = {"env": {"PORT": "1-1.4"}, "isolated": False, "hostname": "lab", "name": "lab"}


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"device": "1-1.4"}, "127.0.0.1"),
        ({"device": "1-1.4", "allow": "192.0.2.0/24"}, "0.0.0.0"),
        ({"device": "serial=7", "rules": ["allow 192.0.2.7"]}, "0.0.0.0"),
        ({"device": "1209:0001", "allow": ["192.0.2.7", "2001:db8::/32"], "listen": "::"}, "::"),
        ({"device": "1209:0001:A:B", "listen": "127.0.0.2"}, "127.0.0.2"),
        ({"device": "1-1", "allow": None, "listen": None}, "127.0.0.1"),
        ({"device": "1-1", "tls": True}, "0.0.0.0"),
        ({"device": "1-1", "tls": True, "client-ca": "ca.pem", "listen": "192.0.2.10"}, "192.0.2.10"),
        ({"device": "1-1", "web": "127.0.0.1:8081", "web-tls": True}, "127.0.0.1"),
    ],
)
def test_where_a_server_listens(given: dict[str, object], place: str) -> None:
    assert Lending.parse(given).place == place


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "device: '' is not a device"),
        ({"device": 11}, "device: 11 is not a device"),
        ({"device": "1209:xyz"}, "'1209:xyz' is not a device"),
        (
            {"device": "1-1", "token": "x"},
            "there is no 'token' in UsbipDevice: device, listen, allow, rules, tls, client-ca",
        ),
        ({"device": "1-1", "allow": 7}, "allow must be a list of strings"),
        ({"device": "1-1", "allow": [7]}, "allow must be a list of strings"),
        ({"device": "1-1", "allow": ["lab"]}, "'lab' is not a network"),
        ({"device": "1-1", "rules": ["let in"]}, "'let in' is not a rule of access"),
        ({"device": "1-1", "rules": ["deny any class:08"]}, "USB/IP has no authentication"),
        ({"device": "1-1", "listen": "0.0.0.0"}, "USB/IP has no authentication"),
        ({"device": "1-1", "listen": 7}, "listen: 7 is not an address"),
        ({"device": "1-1", "tls": "yes"}, "tls: 'yes' is neither true nor false"),
        ({"device": "1-1", "client-ca": "ca.pem"}, "client-ca is nothing without tls: add it"),
        ({"device": "1-1", "web-tls": True}, "web-tls is nothing without web: add it"),
        ({"device": "1-1", "web": True}, "web: True is not an address"),
        ({"device": "1-1", "web": "pi:x"}, "'pi:x' is not an address"),
        ("1-1", "write what is lent below UsbipDevice"),
    ],
)
def test_what_cannot_be_meant(given: object, sentence: str) -> None:
    with pytest.raises(LocalProtocolError, match=re.escape(sentence)):
        Lending.parse(given)


def test_the_page_has_configurations_that_can_be_meant() -> None:
    lent = [
        resources["UsbipDevice"]
        for block in BLOCKS
        for resources in block.values()
        if isinstance(resources, dict) and "UsbipDevice" in resources
    ]
    assert len([Lending.parse(one) for one in lent]) == 3


def test_the_page_has_commands_that_are_understood() -> None:
    lines = re.findall(r"^\$ usbip-capture (labgrid-\w+) ([^>\n]*)", PAGE, re.MULTILINE)
    assert [name for name, _ in lines] == ["labgrid-config", "labgrid-exporter"]
    for name, arguments in lines:
        assert commands.parse(name, arguments.split()).command == name


def test_a_file_is_a_template_with_resources_of_others(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yaml"
    path.write_text(
        "## a comment\nbench:\n  location: shelf\n  usb:\n    cls: UsbipDevice\n    device: {{ env['PORT'] }}\n"
        "  NetworkService:\n    address: pi\n    username: root\n  unused:\n"
    )
    check(str(path), KNOWN)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "bench:\n  UsbipDevice:\n    device: 1-1\n    allow: 7\n",
            "bench/UsbipDevice: allow must be a list of strings",
        ),
        ("bench:\n  UsbipDevice: 7\n", "bench/UsbipDevice: write what is exported below it"),
        ("bench: 7\n", "bench is not a group of resources"),
        ("- bench\n", "has no groups of resources"),
        ("", "has no groups of resources"),
        ("bench: [\n", "cannot be read"),
        ("bench: {{ nothing.here }}\n", "cannot be read"),
        ("bench: {% if %}\n", "cannot be read"),
    ],
)
def test_the_sentence_names_the_file_and_the_resource(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "exporter.yaml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(f"{path}") + ".*" + re.escape(sentence)) as caught:
        check(str(path), KNOWN)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yaml"
    path.write_bytes(b"bench: \xff\n")
    with pytest.raises(FileFormatError, match="cannot be read"):
        check(str(path), KNOWN)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match=r"there is no file .*labgrid-config"):
        check(str(tmp_path / "missing.yaml"), KNOWN)
