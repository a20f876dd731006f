"""The table `[server]` of the configuration: what is wrong is said with its line."""

from __future__ import annotations

from typing import Any

import pytest

from usbip_capture.access.limits import Limits
from usbip_capture.errors import FileFormatError, LocalProtocolError
from usbip_capture.servers.server_table import ServerTable, parse_server_table, read_server_table


def test_a_table() -> None:
    text = b"""# mine\r
[servers]
pi = "192.0.2.1"
[server]
exports = [
  "1-1.4",  # the board
  "303a:4001:AB",
]
listen = "0.0.0.0:3241"
allow = ["192.0.2.0/24"]
max-clients = 3
announce = false
"""
    expected = ServerTable(
        exports=("1-1.4", "303a:4001:AB"), listen=("0.0.0.0:3241",), allow=("192.0.2.0/24",), max_clients=3,
        announce=False,
    )  # fmt: skip
    assert parse_server_table(text, "config.toml") == expected
    assert parse_server_table(b"", "config.toml") == read_server_table() == ServerTable()


def test_limits() -> None:
    text = b"[server]\nmax-clients-per-address = 4\nconnections-per-second = 0\nrequest-timeout = 3\n"
    assert parse_server_table(text, "config.toml").limits == Limits(0, 4, 0, 3)
    assert ServerTable().limits == Limits()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'[server]\nexports = ["1-1.4",\n"zz"]', 3),
        (b'[servers]\nexports = "1-1"\n[server]\nexports = ["zz"]', 4),
        (b"[server]\nmaxclients = 2", 2),
        (b"[server]\nmax-clients = -1", 2),
        (b"[server]\nmax-clients = true", 2),
        (b"\n[server]\nlisten = 3", 3),
        (b'[server]\nlisten = ["a", 3]', 2),
        (b'[server]\nforce = "yes"', 2),
        (b"[server]\nname = 3", 2),
        (b"[server]\nname = '\xff'", 2),
        (b'[server]\nname = "a\\u001b"', 2),
        (b'[server]\nallow = ["192.0.2.0/24", "x"]', 2),
        (b'[server]\nallow = [""]', 2),
        (b'[server]\nlisten = ["127.0.0.1:99999"]', 2),
        (b'[server]\nlisten = [""]', 2),
        (b"[server]\nmax-devices = 9999999999", 2),
        (b"[server]\nconnections-per-second = -1", 2),
        (b"[server]\nmax-clients-per-address = 1.5", 2),
        (b"[server]\nname = 'a'\nrequest-timeout = 0", 3),
        (b"[server]\nrequest-timeout = 3601", 2),
        (b"[server]\naudit = 3", 2),
        (b'[server]\naudit = "a"\naudit-syslog = "tls:pi"', 3),
        (b"[server\n", 1),
        (b"[server]\n\nx", 3),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: bytes, line: int) -> None:
    with pytest.raises(FileFormatError, match=rf"config\.toml\b.*\bline {line}\b"):
        parse_server_table(text, "config.toml")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "lab\n"}, r"name: 'lab\\n' has characters that cannot be shown: choose another"),
        ({"name": "\udcff"}, r"name: '\\udcff' has characters that cannot be shown: choose another"),
        ({"max_clients": -1}, "max-clients must be a whole number from 0 to 2147483647, not -1"),
        ({"request_timeout": 0}, "request-timeout must be from 1 to 3600 seconds, not 0"),
        ({"max_devices": 1 << 40}, "max-devices must be a whole number from 0 to 2147483647, not 1099511627776"),
        ({"allow": ("192.0.2.1", " ")}, "allow: ' ' is not a network: "),
        ({"listen": ("",)}, "listen: '' is not an address: "),
        ({"listen": ("127.0.0.1:x",)}, "listen: .*'127.0.0.1:x'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_whoever_gives_them(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{sentence}"):
        ServerTable(**settings)
