"""The table `[server]` of `config.toml`: what `usbip-capture serve` exports and where, if no option has it.

    [server]
    exports = ["1-1.4", "303a:4001"]
    listen = ["127.0.0.1:3240"]

Its keys are called as the options are. Ref: TOML 1.0
"""

from __future__ import annotations

import re
import sys
from dataclasses import Field, dataclass, fields
from functools import partial
from importlib import import_module
from typing import Any

from usbip_capture.access.limits import CONNECTIONS_PER_SECOND, MAX_REQUEST_TIMEOUT, REQUEST_TIMEOUT, Limits
from usbip_capture.access.rules import CLOSED, MODES, AccessRules
from usbip_capture.capture.span import Span
from usbip_capture.errors import FileFormatError, LocalProtocolError, UsbipError
from usbip_capture.net.networks import listen_address, parse_networks
from usbip_capture.server.rules import Rules
from usbip_capture.servers.configuration import MAX_BYTES, SERVER_TABLE, configuration_path, read_bytes
from usbip_capture.servers.hook_target import MAX_HOOKS, HookTarget
from usbip_capture.servers.syslog_target import SyslogTarget
from usbip_capture.system.shown import one_line

_MAX_COUNT = (1 << 31) - 1
_EXPECTED = {
    tuple: 'a list of strings, such as ["..."]',
    bool: "true or false",
    int: "a whole number from 0 to 2147483647",
    str: "a string",
}
_COUNTS = (
    "max_clients",
    "max_clients_per_address",
    "connections_per_second",
    "request_timeout",
    "max_devices",
    "captures_size",
)
#: Megabytes that the captures of a dashboard may take together.
CAPTURES_SIZE = 4000


@dataclass(slots=True, frozen=True)
class ServerTable:
    """The values of the table; a tuple or "" that is empty, or None, stands for what is not there, 0 for no limit.

    exports: rules, as `server.rules` has them; None: not there. rules: of access, as `access.rules` has them, access:
    the mode; None, "": not there. hindsight: as `capture.span` has it.
    Raises LocalProtocolError for what cannot be meant.
    """

    exports: tuple[str, ...] | None = None
    listen: tuple[str, ...] = ()
    unix: str = ""
    name: str = ""
    max_clients: int = 0
    max_clients_per_address: int = 0
    connections_per_second: int = CONNECTIONS_PER_SECOND
    request_timeout: int = REQUEST_TIMEOUT
    max_devices: int = 0
    rules: tuple[str, ...] | None = None
    access: str = ""
    allow: tuple[str, ...] = ()
    allow_public: bool = False
    force: bool = False
    reset: bool = True
    announce: bool | None = None
    pcap: str = ""
    rotate: tuple[str, ...] = ()
    hindsight: str = ""
    captures: str = ""
    captures_size: int = CAPTURES_SIZE
    audit: str = ""
    audit_syslog: str = ""
    tls: tuple[str, ...] = ()
    client_ca: str = ""
    hooks: tuple[str, ...] = ()
    web: tuple[str, ...] = ()
    web_tls: bool = False
    web_host: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """How many clients, and how much of each."""
        return Limits(self.max_clients, self.max_clients_per_address, self.connections_per_second, self.request_timeout)

    def __post_init__(self) -> None:
        for field in fields(self):
            try:
                _check(field.name, getattr(self, field.name))
            except LocalProtocolError as error:
                raise LocalProtocolError(f"{_key(field.name)}{error}") from None


def _key(name: str) -> str:
    """What the sentence about a value starts with."""
    return f"{name.replace('_', '-')}{'' if name in _COUNTS else ':'} "


def _check(name: str, value: Any) -> None:
    """Raises LocalProtocolError."""
    if name == "name" and not value.isprintable():
        raise LocalProtocolError(f"{value!r} has characters that cannot be shown: choose another")
    if name == "access" and value not in ("", *MODES):
        raise LocalProtocolError(f"{value!r} is not a mode: write open or closed")
    if name in _COUNTS and not 0 <= value <= _MAX_COUNT:
        raise LocalProtocolError(f"must be {_EXPECTED[int]}, not {value}")
    if name == "request_timeout" and not 1 <= value <= MAX_REQUEST_TIMEOUT:
        raise LocalProtocolError(f"must be from 1 to {MAX_REQUEST_TIMEOUT} seconds, not {value}")
    if name == "hindsight" and value:
        Span.parse(value)
    if name == "audit_syslog" and value:
        SyslogTarget.parse(value)
    if name == "hooks" and len(value) > MAX_HOOKS:
        raise LocalProtocolError(f"at most {MAX_HOOKS} are called, not {len(value)}")
    for text in value if name == "hooks" else ():
        HookTarget.parse(text)
    for text in value if name == "allow" else ():
        if not parse_networks(text):
            raise LocalProtocolError(f"{text!r} is not a network: write one such as 192.0.2.0/24")
    for text in value if name == "web_host" else ():
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
            raise LocalProtocolError(f"{text!r} is not the name of a host: write one such as pi.example.org")
    for text in value if name in ("listen", "tls", "web") else ():
        if not text.strip():
            port = 8080 if name == "web" else 3240
            raise LocalProtocolError(f"{text!r} is not an address: write one such as 127.0.0.1:{port}")
        listen_address(text)


def read_server_table() -> ServerTable:
    """The table as it is in the file now. Raises FileFormatError, with the file and the line, UsbipError."""
    path = configuration_path()
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise UsbipError(f"{path} cannot be read: {error.strerror or error}: make it readable, or move it") from error
    if len(raw) >= MAX_BYTES:  # of a longer one only a part was read
        raise FileFormatError(f"{path} is too long for a configuration: at most {MAX_BYTES} bytes are read")
    return parse_server_table(raw, path)


def parse_server_table(raw: bytes, path: str) -> ServerTable:
    """The table in the bytes of a file; path: for errors. Raises FileFormatError, UsbipError."""
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise FileFormatError(f"{path}, line {line}: it is not UTF-8: correct it") from error
    table = parse_tables(text, path).get(SERVER_TABLE, {})
    if not isinstance(table, dict):
        raise FileFormatError(f"{path}: {SERVER_TABLE} is not a table: write [{SERVER_TABLE}] on a line of its own")
    values: dict[str, object] = {}
    for key, value in table.items():
        try:
            values[key.replace("-", "_")] = server_value(key, value)
        except LocalProtocolError as error:
            raise _wrong(text, path, key, str(error)) from error
    made = ServerTable(**values)  # type: ignore[arg-type]  # each was looked at
    _check_rules(made, text, path)
    _check_access(made, list(values), text, path)
    return made


def server_keys() -> dict[str, Field[Any]]:
    """The keys of the table, in their order, and what their values are."""
    return {field.name.replace("_", "-"): field for field in fields(ServerTable)}


def kind_of(key: str) -> type:
    """Of the value of a key: tuple (of strings), bool, int or str."""
    field = server_keys()[key]
    return tuple if "tuple" in str(field.type) else bool if "bool" in str(field.type) else type(field.default)


def server_value(key: str, value: object) -> object:
    """The value of a key as `ServerTable` has it, from that in a file. Raises LocalProtocolError."""
    if key not in server_keys():
        raise LocalProtocolError(f"there is no {one_line(key)!r} in [{SERVER_TABLE}]: {', '.join(server_keys())}")
    kind = kind_of(key)
    converted = _converted(kind, value)
    if converted is None:
        raise LocalProtocolError(f"{key} must be {_EXPECTED[kind]}")
    ServerTable(**{key.replace("-", "_"): converted})  # type: ignore[arg-type]  # it was looked at
    return converted


def _check_rules(table: ServerTable, text: str, path: str) -> None:
    """Raises FileFormatError, with the line of the rule."""
    for key, rules, kind in (("exports", table.exports, Rules), ("rules", table.rules, partial(AccessRules, CLOSED))):
        for rule in rules or ():
            try:
                kind([rule])
            except LocalProtocolError as error:
                raise _wrong(text, path, rule, str(error), key) from error


def _check_access(table: ServerTable, names: list[str], text: str, path: str) -> None:
    """A file of which the end is missing must not let in more than the whole one. Raises FileFormatError."""
    if "access" in names and not table.access:
        raise _wrong(text, path, "access", 'access must be "open" or "closed"')
    if table.allow_public and table.access == CLOSED:
        raise _wrong(text, path, "allow-public", 'allow-public contradicts access = "closed": remove one of them')
    for name in ("access", "allow", "allow_public") if "rules" in names else ():
        if name in names and names.index(name) < names.index("rules"):
            key = name.replace("_", "-")
            raise _wrong(text, path, key, f"rules must stand before {key}, so that no part of this file lets in more")


def parse_tables(text: str, path: str) -> dict[str, object]:
    """All that is in the text of a file. Raises FileFormatError, UsbipError."""
    try:
        toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError as error:
        raise UsbipError(f"{path} needs the package tomli on Python 3.10: pip install tomli") from error
    try:
        loaded: dict[str, object] = toml.loads(text)
    except ValueError as error:
        reason = one_line(str(error)).replace("at end of document", f"at the end, line {text.count(chr(10)) + 1}")
        raise FileFormatError(f"{path} is not valid TOML: {reason}: correct it") from error
    return loaded


def _converted(kind: type, value: object) -> object:
    """The value of a key, None if it is not of its kind."""
    if kind is tuple:
        listed = [value] if isinstance(value, str) else value
        strings = isinstance(listed, list) and all(isinstance(item, str) for item in listed)
        return tuple(listed) if isinstance(listed, list) and strings else None
    if isinstance(value, bool):
        return value if kind is bool else None
    if kind is int:
        return value if isinstance(value, int) and value >= 0 else None
    return value if isinstance(value, kind) else None


def _wrong(text: str, path: str, found: str, sentence: str, key: str = "") -> FileFormatError:
    """The error for a key, or for something in the value of `key`, with the line in which it is."""
    inside, of_key = False, 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line.startswith("["):
            inside = inside or line.partition("#")[0].strip() == f"[{SERVER_TABLE}]"
        if inside and not of_key and line.strip("\"'").startswith(key):
            of_key = number
        if inside and of_key and found in line:
            return FileFormatError(f"{path}, line {number}: {sentence}")
    return FileFormatError(f"{path}{f', line {of_key}' if key and of_key else ''}: {sentence}")
