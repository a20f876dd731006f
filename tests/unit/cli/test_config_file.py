"""Servers added to the configuration and removed from it: nothing else in the file changes, and no failure harms it."""

from __future__ import annotations

import json
import os
import stat
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.cli.main import main
from usbip_capture.servers.configuration import configuration_path, named, read_table

TOML = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
FILE = '# mine\n[servers]\nbench = "192.0.2.10:3241"  # the big one\n\n"Rack 1"="pi.local"\n# end\n'


def configure(text: str) -> Path:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def config(*words: str) -> int:
    return main(["config", *words])


def test_the_first_server_makes_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(configuration_path())
    assert config("add", "bench", "192.0.2.10:3241") == 0
    assert path.read_text() == '[servers]\nbench = "192.0.2.10:3241"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert named("bench") == ("192.0.2.10", 3241)
    assert capsys.readouterr().out == f"bench is 192.0.2.10:3241 from now on, in {path}\n"
    assert os.listdir(path.parent) == [path.name]


def test_comments_and_all_else_stay(capsys: pytest.CaptureFixture[str]) -> None:
    path = configure(FILE)
    assert config("add", "Rack 2", "[fe80::1]:3240") == 0
    assert path.read_text() == FILE + '"Rack 2" = "[fe80::1]:3240"\n'
    assert config("add", "BENCH", "pi") == 0
    assert path.read_text() == FILE.replace("192.0.2.10:3241", "pi") + '"Rack 2" = "[fe80::1]:3240"\n'
    assert config("remove", "rack 2") == 0
    assert config("remove", "bench") == 0
    assert path.read_text() == '# mine\n[servers]\n\n"Rack 1"="pi.local"\n# end\n'
    assert "bench is not configured any more" in capsys.readouterr().out


def test_other_tables_and_line_ends_stay() -> None:
    path = configure('x = 1\r\n[servers]\r\na = "b"\r\n\r\n[other]\r\nc = "d"\r\n')
    assert config("add", "e", "f") == 0
    assert path.read_bytes() == b'x = 1\r\n[servers]\r\na = "b"\r\ne = "f"\r\n\r\n[other]\r\nc = "d"\r\n'
    path = configure("[other]\nc = 1")
    assert config("add", "e", "f") == 0
    assert TOML.loads(path.read_text()) == {"other": {"c": 1}, "servers": {"e": "f"}}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["add", "bench"], 2, "usbip-capture config: add needs NAME and HOST"),
        (["add", "demo", "pi"], 2, "demo is the simulated device: choose another name"),
        (["add", "x", "pi:99999"], 2, "it is not an address"),
        (["add", "x", "a b"], 2, "it is not an address"),
        (["add", 'a"b', "pi"], 2, "cannot be a name"),
        (["add", "a\nb", "pi"], 2, "cannot be a name"),
        (["add", "", "pi"], 2, "add needs NAME and HOST"),
        (["remove"], 2, "remove needs the NAME of one server"),
        (["remove", "x"], 1, "does not name a server 'x': there are bench, Rack 1"),
        (["ad", "x", "pi"], 2, "'ad' is not a possible value: did you mean add?"),
    ],
)
def test_what_cannot_be(words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = configure(FILE)
    assert config(*words) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert path.read_text() == FILE


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[servers\n", "is not valid TOML"),
        ("servers = 1\n", "servers is not a table"),
        ('servers = {a = "b"}\n', "edit it yourself"),
        ('servers.a = "b"\n', "edit it yourself"),
        ('[servers]\nnew = """pi"""\n', "edit it yourself"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(
    text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configure(text)
    assert config("add", "new", "pi") == 1
    assert sentence in capsys.readouterr().err
    assert path.read_text() == text


def test_what_is_not_a_file_is_not_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    assert config("add", "new", "pi") == 1
    assert "is not a file: move it" in capsys.readouterr().err


def test_a_link_stays_one(tmp_path: Path) -> None:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "dotfile").write_text(FILE)
    path.symlink_to(tmp_path / "dotfile")
    assert config("add", "new", "pi") == 0
    assert path.is_symlink()
    assert 'new = "pi"' in (tmp_path / "dotfile").read_text()


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "bench=192.0.2.1")
    assert config("add", "bench", "pi") == 0
    assert "USBIP_CAPTURE_SERVERS names bench, too, and comes first" in capsys.readouterr().err


NAMES = st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters='"\\'), min_size=1, max_size=8)
LINES = st.sampled_from(
    ["", "# c", 'a = "b"', '"a b" = "c:1" # d', "[other]", "[servers]", 'x = "y"  ', "[other.servers]", "n = [1,\n2]"]
)


@given(st.lists(LINES, max_size=6).map("\n".join), NAMES.filter(lambda n: n.strip() and n.lower() != "demo"))
def test_whatever_is_written_is_what_was_meant(text: str, name: str) -> None:
    try:
        before = read_table(text)
    except ValueError:
        return
    path = configure(text)
    if config("add", name, "pi:1"):
        assert path.read_text() == text
        return
    after = read_table(path.read_text())
    (changed,) = {n for n in after if after[n] != before.get(n)} or {n for n in after if after[n] == "pi:1"}
    assert after == {**before, changed: "pi:1"}
    assert config("remove", name) == 0
    assert changed not in read_table(path.read_text())


def test_the_table_of_the_server_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure(FILE + '[server]\nexports = ["1-1.4", "303a:4001"]\nmax-clients = 3\nannounce = false\n')
    assert config() == 0
    shown = capsys.readouterr().out
    assert "serve exports: 1-1.4, 303a:4001\nserve max-clients: 3\nserve announce: false\n" in shown
    assert config("--json") == 0
    own = json.loads(capsys.readouterr().out)["server"]
    assert own == {"exports": ["1-1.4", "303a:4001"], "max-clients": 3, "announce": False}
    path = configure(FILE + '[server]\nexports = ["x"]\n')
    assert config() == 1
    assert capsys.readouterr().err.startswith(f"usbip-capture: {path}, line 8: 'x' is not a rule")
