"""`bind` and `unbind` in the configuration file: what they do not mean stays as it was, byte for byte."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.configuration.exports import add_exports, remove_exports
from usbip_capture.errors import FileFormatError, UsbipError
from usbip_capture.server.rules import ExportRule
from usbip_capture.servers.server_table import parse_server_table

PORT, KIND, CLASS = (ExportRule.parse(text) for text in ("1-1.4", "303a:4001", "class:03"))
SERIAL = ExportRule.parse('0403:6001:A"B\\C\u00fc#],')

PLAIN = '[server]\nexports = ["1-1.4"]\n'
COMMENTED = """\
# mine
[servers]
bench = "192.0.2.1"  # the bench

[server]  # lent
listen = ["127.0.0.1"]
exports = [  # these
    "1-1.4",   # the board ]
    # "9-9",
    '303a:4001' # and "this"
]  # end
name = "rack"

[other]
exports = ["no"]
"""
ADDED = [
    ("", '[server]\nexports = ["class:03"]\n'),
    ("# a", '# a\n\n[server]\nexports = ["class:03"]\n'),
    ("[servers]\nx = 'y'\n", "[servers]\nx = 'y'\n\n[server]\nexports = [\"class:03\"]\n"),
    ("[server]", '[server]\nexports = ["class:03"]\n'),
    ("[server]\r\nname = 'x'\r\n", "[server]\r\nexports = [\"class:03\"]\r\nname = 'x'\r\n"),
    ("[server]\nexports = []\n", '[server]\nexports = ["class:03"]\n'),
    (PLAIN, '[server]\nexports = ["1-1.4", "class:03"]\n'),
    ("[server]\nexports=[ '1-1.4', ] # x", "[server]\nexports=[ '1-1.4', \"class:03\", ] # x"),
    (COMMENTED, COMMENTED.replace("'303a:4001' #", "'303a:4001', #").replace("]  # end", '    "class:03",\n]  # end')),
    ("[server]\nexports = [\r\n\t'1-1.4',\r\n]\r\n", "[server]\nexports = [\r\n\t'1-1.4',\r\n\t\"class:03\",\r\n]\r\n"),
]
REMOVED = [
    (PLAIN, "[server]\nexports = []\n"),
    ("[server]\nexports = ['303a:4001', \"1-1.4\"]\n", "[server]\nexports = ['303a:4001']\n"),
    ("[server]\nexports = ['1-1.4' , \"303a:4001\"]", '[server]\nexports = ["303a:4001"]'),
    (COMMENTED, COMMENTED.replace('    "1-1.4",   # the board ]\n', "")),
    ("[server]\nexports = ['1-1.4', '1-1.4']", "[server]\nexports = []"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "config.toml"


def wrote(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize(("before", "after"), ADDED)
def test_a_rule_is_added(path: Path, before: str, after: str) -> None:
    assert add_exports(wrote(path, before), [CLASS]) == [CLASS]
    assert path.read_bytes().decode() == after
    assert add_exports(str(path), [CLASS]) == []
    assert path.read_bytes().decode() == after


@pytest.mark.parametrize(("before", "after"), REMOVED)
def test_a_rule_is_removed(path: Path, before: str, after: str) -> None:
    assert remove_exports(wrote(path, before), [PORT, CLASS]) == [PORT]
    assert path.read_bytes().decode() == after
    assert remove_exports(str(path), [PORT]) == []


def test_the_file_is_made(path: Path) -> None:
    assert add_exports(str(path), [SERIAL, SERIAL]) == [SERIAL]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert exports(path) == [SERIAL]
    assert remove_exports(str(path), [SERIAL]) == [SERIAL]
    assert exports(path) == []


def test_without_rules_there_is_a_list_at_least(path: Path) -> None:
    assert add_exports(str(path), []) == []
    assert path.read_text() == "[server]\nexports = []\n"


def test_nothing_is_removed_from_no_file(path: Path) -> None:
    assert remove_exports(str(path), [PORT]) == []
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        '[server]\nexports = "1-1.4"\n',
        'server.exports = ["1-1.4"]\n',
        'server = { exports = ["1-1.4"] }\n',
        '[server]\nexports = ["""1-1.4"""]\n',
        '[x]\ntext = """\n[server]\nexports = ["1-1.4"]\n"""\n\n[server]\nexports = ["1-1.4"]\n',
    ],
)
def test_what_is_not_plain_stays_for_its_owner(path: Path, text: str) -> None:
    for change in (add_exports, remove_exports):
        with pytest.raises(UsbipError, match="edit it yourself"):
            change(wrote(path, text), [CLASS if change is add_exports else PORT])
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[server]\nexports = [\n", "is not valid TOML"),
        ("[server]\n\nexports = ['nonsense']\n", "line 3: 'nonsense' is not a rule"),
        ("[server]\nexport = []\n", "line 2: there is no 'export'"),
    ],
)
def test_a_damaged_file_is_a_sentence_and_stays(path: Path, text: str, why: str) -> None:
    with pytest.raises(FileFormatError, match=why):
        add_exports(wrote(path, text), [CLASS])
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsbipError, match=r"cannot be (read|written): Not a directory"):
        add_exports(str(tmp_path / "file" / "config.toml"), [CLASS])
    with pytest.raises(UsbipError, match="is not a file: move it"):
        add_exports(str(tmp_path), [CLASS])


def exports(path: Path) -> list[ExportRule]:
    return [ExportRule.parse(rule) for rule in parse_server_table(path.read_bytes(), "").exports or ()]


RULES = st.lists(st.sampled_from([PORT, KIND, CLASS, SERIAL, ExportRule.parse("all")]), max_size=5, unique=True)
GAPS = st.sampled_from(["", " ", "\n", "\n  ", " # , ] \"'\n", "\t\n# x\n  "])


@given(RULES, st.data(), st.booleans(), RULES, RULES)
def test_any_layout(
    tmp_path_factory: pytest.TempPathFactory,
    known: list[ExportRule],
    data: st.DataObject,
    trailing: bool,
    added: list[ExportRule],
    removed: list[ExportRule],
) -> None:
    import json

    path = tmp_path_factory.getbasetemp() / "layout.toml"
    text = "# first\n[server] # x\nname = 'n'\nexports = ["
    for at, rule in enumerate(known):
        text += data.draw(GAPS) + json.dumps(str(rule), ensure_ascii=False) + data.draw(GAPS)
        text += "," if trailing or at < len(known) - 1 else ""
    text += data.draw(GAPS) + "]\nforce = true\n\n[servers]\nx = 'y' # last\n"
    path.write_text(text)
    add_exports(str(path), added)
    expected = list(dict.fromkeys([*known, *added]))
    assert exports(path) == expected
    remove_exports(str(path), removed)
    assert exports(path) == [rule for rule in expected if rule not in removed]
    left = path.read_text()
    assert left.startswith("# first\n[server] # x\nname = 'n'\nexports = [")
    assert left.endswith("]\nforce = true\n\n[servers]\nx = 'y' # last\n")
