"""Values of the table `[server]` in the configuration file: changed alone, checked as those that are read."""

from __future__ import annotations

import os
import random
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from usbip_capture.configuration.values import set_values
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.servers.server_table import ServerTable, parse_server_table, server_keys
from usbip_capture.system import folder_lock

OWN = """\
# my servers
[servers]
bench = "192.0.2.10"

[server]  # what I lend
exports = ["1-1.4"]  # the board
max-clients = 3  # of us
name = 'lab'

[other]
max-clients = "not mine"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "config.toml"
    made.write_text(OWN)
    return made


def having(table: ServerTable, key: str, value: object) -> ServerTable:
    changed: dict[str, Any] = {key.replace("-", "_"): tuple(value) if isinstance(value, list) else value}
    return replace(table, **changed)


def read(path: Path) -> ServerTable:
    return parse_server_table(path.read_bytes(), str(path))


#: One value for each key, other than its default.
VALUES: dict[str, object] = {
    "exports": ["1-1", "303a:4001"], "listen": ["127.0.0.1:0", "[::1]:3240"], "unix": "/run/a b.sock",
    "name": 'a "b" ü \\',
    "max-clients": 7, "max-clients-per-address": 1, "connections-per-second": 9, "request-timeout": 5, "max-devices": 2,
    "rules": ["deny any 303a:4001"], "access": "open", "allow": ["192.0.2.0/24"], "allow-public": True, "force": True,
    "reset": False, "announce": True, "pcap": "/tmp/x.pcapng", "rotate": ["files:3"], "audit": "/tmp/a", "tls": ["*"],
    "hindsight": "30s,16MiB", "audit-syslog": "tcp:192.0.2.1:514", "client-ca": "/tmp/ca.pem",
    "hooks": ["attach,detach=/usr/local/bin/notify 'a \\ b'", "plug=https://example.com/usb"],
}  # fmt: skip


@pytest.mark.parametrize("key", server_keys())
def test_each_key_is_written_changed_and_removed_and_all_else_stays(key: str, path: Path) -> None:
    field, value = key.replace("-", "_"), VALUES.get(key)
    if value is None:
        kind = type(server_keys()[key].default)
        value = {bool: True, int: 5, str: "text"}.get(kind, ["text"])
    before = read(path)
    assert set_values(str(path), {key: value}) == [key]
    assert read(path) == having(before, key, value)
    assert set_values(str(path), {key: value}) == []
    assert path.read_text().count(f"\n{key} =") == (2 if key == "max-clients" else 1)
    set_values(str(path), {key: None})
    assert read(path) == having(before, key, getattr(ServerTable(), field))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    if key not in ("exports", "max-clients", "name"):
        assert path.read_text() == OWN


def test_comments_and_order_stay(path: Path) -> None:
    set_values(str(path), {"max-clients": 12, "exports": ["1-2", "1-3"], "name": "x"})
    assert path.read_text() == OWN.replace("= 3 ", "= 12 ").replace('"1-1.4"', '"1-2", "1-3"').replace("'lab'", '"x"')
    set_values(str(path), {"max-clients": None, "name": None})
    assert '[server]  # what I lend\nexports = ["1-2", "1-3"]  # the board\n# of us\n\n[other]' in path.read_text()


def test_several_at_once_in_the_order_that_a_cut_file_needs(path: Path) -> None:
    set_values(str(path), {"access": "open", "allow": ["192.0.2.0/24"], "rules": ["deny 192.0.2.7"]})
    set_values(str(path), {"allow-public": True})
    text = path.read_text()
    assert text.index("rules =") < min(text.index(f"\n{key} =") for key in ("access", "allow", "allow-public"))
    assert set_values(str(path), {"access": "closed"}) == ["access", "allow-public"]
    with pytest.raises(LocalProtocolError, match="allow-public contradicts"):
        set_values(str(path), {"allow-public": True})


def test_a_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "config.toml"
    set_values(str(path), {"max-clients": 1})
    assert path.read_text() == "[server]\nmax-clients = 1\n"


def test_line_ends_of_windows_stay(path: Path) -> None:
    path.write_bytes(b'[server]\r\nname = "x"\r\nreset = true\r\n')
    set_values(str(path), {"name": "y", "reset": None, "force": True})
    assert path.read_bytes() == b'[server]\r\nforce = true\r\nname = "y"\r\n'


@pytest.mark.parametrize(
    "changes",
    [
        {"no-such": 1}, {"max_clients": 1}, {"max-clients": -1}, {"max-clients": 1 << 40}, {"max-clients": "1"},
        {"max-clients": True}, {"max-clients": 1.5}, {"reset": 1}, {"name": 5}, {"name": "a\nb"}, {"name": "\ud800"},
        {"name": "\x7f"}, {"pcap": "a\0b"}, {"listen": ["127.0.0.1:70000"]}, {"listen": [""]}, {"listen": [5]},
        {"exports": ["what is this"]}, {"exports": ["1-1\x1b"]}, {"rules": ["permit any"]}, {"access": "public"},
        {"allow": ["192.0.2.300"]}, {"request-timeout": 0}, {"audit-syslog": "ftp:x:y:z"}, {"name": {"a": 1}},
        {"max-clients": 4, "name": []}, {"a\nb": None},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_changes_nothing(changes: dict[str, object], path: Path) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        set_values(str(path), changes)
    assert path.read_text() == OWN
    assert str(refused.value).isprintable()
    assert str(path) not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        'server.name = "x"\n',
        'server = {name = "x"}\n',
        '[server]\nname = """\nx"""\n',
        "[server]\n'na\\u006de' = 'x'\n",
        '[server]\nname = "x\n',
        '[other]\nx = """\n[server]\nname = 5\n"""\n',
        '[server]\nrules = "deny any"\nname = """x"""\n',
    ],
)
def test_what_is_too_complex_is_left_alone_or_right(text: str, path: Path) -> None:
    path.write_text(text)
    try:
        set_values(str(path), {"name": "new"})
    except UsbipError:
        assert path.read_text() == text
    else:
        assert read(path).name == "new"


def test_random_changes_of_many_keys(path: Path) -> None:
    draw = random.Random(7)
    wanted = read(path)
    for _ in range(150):
        key = draw.choice(sorted(VALUES.keys() - {"access", "allow-public"}))
        value = draw.choice([VALUES[key], None])
        set_values(str(path), {key: value})
        made = getattr(ServerTable(), key.replace("-", "_")) if value is None else value
        wanted = having(wanted, key, made)
        assert read(path) == wanted
    assert path.read_text().endswith('\n[other]\nmax-clients = "not mine"\n')
    assert "# the board" in path.read_text()
    assert "# of us" in path.read_text()


def test_no_change_of_several_programs_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "_TIMEOUT", 120.0)  # a busy machine may let one of them wait long
    keys = ["max-clients", "max-devices", "connections-per-second", "max-clients-per-address"]

    def change(key: str) -> None:
        for value in range(1, 21):
            set_values(str(path), {key: value})

    threads = [threading.Thread(target=change, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [getattr(read(path), key.replace("-", "_")) for key in keys] == [20] * 4


def test_the_values_of_this_test_name_keys() -> None:
    assert VALUES.keys() <= server_keys().keys()
