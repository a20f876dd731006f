"""Servers by name: the quick reader finds what a reader of TOML finds, or leaves the file to it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usbip_capture.errors import LocalProtocolError
from usbip_capture.servers.address import DEMO, ServerAddress
from usbip_capture.servers.configuration import configuration_path, configured, named, read_lines
from usbip_capture.servers.known import known_servers

TOML = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def configure(text: str) -> None:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


FILE = '# mine\n[servers]\nbench = "192.0.2.10:3241"  # the big one\r\n"Rack 1"="pi.local"\n\n'
LINES = st.sampled_from(
    ["[servers]", "[servers] # x", "[[servers]]", "[other]", "", "# c", 'a = "b"', 'a="b"c', '"a b" = "c:1" # d',
     "a = 1", "\x0b", "\r", 'c = "\x7f"',
     'a = "x\\ty"', 'a = """x"""', "a = 'b'", 'a.b = "c"', 'servers.a = "b"', 'b = ""', '\t"" = "x"', 'a = "b" "c"',
     "[server]", 'exports = ["1-1.4", "303a:4001"]', 'exports = ["a" "b"]', "exports = [", 'listen = ["x",] # d',
     "x = []", "max-clients = 3", "max-clients = 03", "max-clients = 0", "max-clients = 3x", "force = true",
     "force = yes",
     '\u00e4 = "x"', '"\u00e4" = "x"', "a", "= b", '"a" "b"', 'a\u00a0= "b"', '-1_a = "[::1]:1"']
)  # fmt: skip


@given(st.lists(LINES, max_size=8).map("\n".join) | st.text(alphabet="[servers]=\"a \t\n\r#\\'.", max_size=40))
@example('[server]\nexports = ["1-1.4", ]\nforce = true\n[servers]\na = "b"')
@example("[server]\nx = [,]")
@example('[servers]\na = "b"\n[servers]')
@example("[server]\nx = 1\nx = 2")
def test_the_quick_reader_agrees_with_toml(text: str) -> None:
    table = read_lines(text)
    if table is not None:
        assert dict(table) == TOML.loads(text.replace("\r\n", "\n")).get("servers", {})


def test_the_usual_file_is_read_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_lines(FILE) == [("bench", "192.0.2.10:3241"), ("Rack 1", "pi.local")]
    configure(FILE)
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    assert named("BENCH ") == ("192.0.2.10", 3241)
    assert named("Rack 1") == ("pi.local", 0)
    assert named("nobody") is named("") is None
    configure(FILE + '[server]\nexports = ["1-1.4", "303a:4001"]  # mine\nmax-clients = 3\n')
    assert named("bench") == ("192.0.2.10", 3241)


def test_all_of_toml() -> None:
    configure("[servers]\nbench = '192.0.2.10'\n[servers.x]\nhost = 'y'\n")
    found = [(s.name, s.host, bool(s.problem)) for s in configured()]
    assert found == [("bench", "192.0.2.10", False), ("x", "", True)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[servers\n", "it is not valid TOML"),
        ("servers = 1\n", "servers is not a table"),
        ('[servers]\na = "b"\na = "c"\n', "it is not valid TOML"),
        ("[servers]\na = 1\n", "it must be a string"),
        ('[servers]\na = "pi:port"\n', "it is not an address"),
        ('[servers]\na = "two words"\n', "it is not an address"),
        ('[servers]\na = "pi:0"\n', "it is not an address"),
        ('[servers]\na = "<pi>"\n', "it is not an address"),
        ('[servers]\nDemo = "pi"\n', "choose another name"),
    ],
)
def test_what_cannot_be_used(text: str, problem: str) -> None:
    configure(text)
    (entry,) = configured()
    assert problem in entry.problem
    assert known_servers() == []


def test_bytes_that_are_no_text() -> None:
    configure("")
    Path(configuration_path()).write_bytes(b"\xff\xfe")
    assert "it is not valid TOML" in configured()[0].problem


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(FILE)
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "pi,big=10.0.0.1,bench=elsewhere")
    assert [(s.name, s.host, s.source) for s in configured()] == [
        ("", "pi", "environment"),
        ("big", "10.0.0.1", "environment"),
        ("bench", "elsewhere", "environment"),
        ("bench", "192.0.2.10", "configuration"),
        ("Rack 1", "pi.local", "configuration"),
    ]
    assert named("bench") == ("elsewhere", 0)


def test_names_wherever_a_host_is_taken() -> None:
    configure(FILE)
    assert ServerAddress.parse("bench") == ServerAddress("192.0.2.10", 3241)
    assert ServerAddress.parse("bench", 1514).port == 1514
    assert ServerAddress.parse("bench:4000") == ServerAddress("192.0.2.10", 4000)
    assert ServerAddress.parse("Rack 1") == ServerAddress("pi.local")
    assert ServerAddress.parse(DEMO).host == DEMO
    with pytest.raises(LocalProtocolError):
        ServerAddress.parse(" ")


def test_a_file_as_windows_writes_it() -> None:
    configure("\ufeff" + FILE.replace("\n", "\r\n"))
    assert [server.name for server in configured()] == ["bench", "Rack 1"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_instead_of_the_file_is_not_waited_for() -> None:
    Path(configuration_path()).parent.mkdir(parents=True)
    os.mkfifo(configuration_path())
    assert configured() == []
