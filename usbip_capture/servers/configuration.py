"""Servers that the user has named, in `config.toml` or in the environment.

Wireshark waits for this at each of its starts, so that nothing is imported but `os`, and nothing here ever raises. The
usual file, a table of names and addresses, is read line by line; one with more of TOML in it by a reader of TOML, which
takes twice as long to import as Python itself takes to start.

    [servers]
    bench = "192.0.2.10:3241"
    "Rack 1" = "pi.local"

    [dashboards]
    bench = "https://192.0.2.10:8080"

    [tokens]
    bench = "TOKEN"

    [labgrid]
    coordinator = "lab.example.org"

Ref: TOML 1.0
"""

from __future__ import annotations

import os
import sys

from usbip_capture.net.address import DEFAULT_PORT, parse_dashboard, parse_place, usual_port
from usbip_capture.system.folders import configuration_folder

#: Servers by environment: `HOST`, `HOST:PORT` or `NAME=HOST:PORT`, separated by commas.
SERVERS_VARIABLE = "USBIP_CAPTURE_SERVERS"
CONFIGURATION_FILE = "config.toml"
SERVERS_TABLE = "servers"
#: Where the dashboards of servers are, and by which token this user signs in to each.
DASHBOARDS_TABLE, TOKENS_TABLE = "dashboards", "tokens"
#: What `usbip-capture serve` does: see `server_table`.
SERVER_TABLE = "server"
#: Where labgrid's coordinator is, as its environment variable has it.
LABGRID_TABLE, COORDINATOR_VARIABLE = "labgrid", "LG_COORDINATOR"
_TABLES = (SERVERS_TABLE, SERVER_TABLE, DASHBOARDS_TABLE, TOKENS_TABLE, LABGRID_TABLE)
#: Where servers are configured, and the name of each place.
ENVIRONMENT, CONFIGURATION = "environment", "configuration"
#: No file of ours is ever longer.
MAX_BYTES = 1 << 20
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
#: Names of hosts that are built in, and what they are.
DEMO, LOCAL = "demo", "local"
_BUILT_IN = {DEMO: "the simulated device", LOCAL: "this machine itself"}
#: What a name or an address has besides letters and digits; `%` is in front of an IPv6 zone.
_MARKS = "-._:%"
_WITHOUT_MARKS = dict.fromkeys(map(ord, _MARKS))
_NO_PORT = -1
#: Table -> the last text, and what it has: who has hundreds of servers looks at them one by one.
_parsed: dict[str, tuple[str, dict[str, object]]] = {}


class ConfiguredServer:
    """One entry. name: empty if it has none. host: empty if there is a `problem`. port: 0 if not given.

    source: ENVIRONMENT or CONFIGURATION. entry: as it is written, empty if it is the whole file.
    """

    __slots__ = ("entry", "host", "name", "port", "problem", "source")

    def __init__(self, entry: str, source: str, name: str = "", address: object = "") -> None:
        self.entry = entry
        self.source = source
        self.name = _one_line(name)
        self.host, self.port, self.problem = "", 0, ""
        if not isinstance(address, str):
            self.problem = 'it must be a string: NAME = "HOST" or NAME = "HOST:PORT"'
        elif self.name.lower() in _BUILT_IN:
            self.problem = f"{self.name.lower()} is {_BUILT_IN[self.name.lower()]}: choose another name"
        else:
            self._parse(address)

    def complaint(self, place: str) -> str:
        """`problem` as a sentence; place: what the source is called there."""
        if not self.entry:
            return f"{place} {self.problem.removeprefix('it ')}"
        return f"{_one_line(self.entry)!r} in {place} cannot be used: {self.problem}"

    def _parse(self, address: str) -> None:
        try:
            host, port = parse_place(address, _NO_PORT)
        except ValueError:  # LocalProtocolError, which is not imported for this
            host, port = "", 0
        other = host.translate(_WITHOUT_MARKS)
        if not port or not ("://" in host or not other or other.isalnum()):
            self.problem = "it is not an address: write HOST, HOST:PORT, [IPv6]:PORT, tls://HOST or ssh://HOST"
        else:
            self.host, self.port = host, max(port, 0)


def configured() -> list[ConfiguredServer]:
    """All entries, in the order in which they are looked at; those that cannot be used too."""
    found = [_of_line(entry, ENVIRONMENT) for entry in os.environ.get(SERVERS_VARIABLE, "").split(",") if entry.strip()]
    return found + _of_configuration()


def named(name: str) -> tuple[str, int] | None:
    """Host and port (0 if not given) of the server that the user has called so; None if there is none."""
    wanted = name.strip().lower()
    for server in configured() if wanted else ():
        if server.host and server.name.lower() == wanted:
            return server.host, server.port
    return None


def place_of(text: str, port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Host, with its scheme if it has one, and port of a server as people write it: a name of theirs, or an address.

    port: where `text` has none; a configured one counts where it is the usual one. Raises LocalProtocolError.
    """
    if (own := named(text)) is None:
        host, port = parse_place(text, port)
        if (own := named(host)) is None:
            return host, port
    host, own_port = own
    if port != DEFAULT_PORT:
        return host, port
    return host, own_port or usual_port(host)


def configured_dashboards() -> list[tuple[str, str, int]]:
    """Name, host with its scheme, and port of each in the configuration file; what cannot be used is left out."""
    found = []
    for name, address in _strings_of(DASHBOARDS_TABLE).items():
        try:
            found.append((_one_line(name), *parse_dashboard(address)))
        except ValueError:  # LocalProtocolError, which is not imported for this
            continue
    return found


def tokens() -> dict[str, str]:
    """By the names or addresses for which they are in the configuration file; none if it cannot be read."""
    return _strings_of(TOKENS_TABLE)


def coordinator() -> str:
    """HOST[:PORT] of labgrid's coordinator, by the environment or the configuration file; empty if there is none."""
    return os.environ.get(COORDINATOR_VARIABLE, "").strip() or coordinator_in_file()


def required_coordinator() -> str:
    """The same. Raises LocalProtocolError if there is none."""
    from usbip_capture.errors import LocalProtocolError

    if where := coordinator():
        return where
    raise LocalProtocolError(
        f"labgrid's coordinator is not configured: set {COORDINATOR_VARIABLE}, or write coordinator = "
        f'"HOST" under [{LABGRID_TABLE}] in {configuration_path()}'
    )


def coordinator_in_file() -> str:
    """The same, by the configuration file alone."""
    return _strings_of(LABGRID_TABLE).get("coordinator", "").strip()


def _strings_of(table: str) -> dict[str, str]:
    try:
        entries = read_table(read_bytes(configuration_path()).decode("utf-8-sig"), table)
    except (OSError, ImportError, ValueError):  # complained about by `configured`
        return {}
    return {name: value for name, value in entries.items() if isinstance(value, str)}


def configuration_path() -> str:
    """The configuration file, whether it exists or not."""
    return os.path.join(configuration_folder(), CONFIGURATION_FILE)


def read_lines(text: str, wanted: str = SERVERS_TABLE) -> list[tuple[str, str]] | None:
    """Names and texts of one table, in a file of nothing but our tables; None if it has more."""
    text = text.replace("\r\n", "\n")
    if any((c < " " and c not in "\t\n") or c == "\x7f" for c in text):
        return None
    tables: dict[str, dict[str, str]] = {}
    table = ""
    for line in text.split("\n"):
        line = line.strip(" \t")
        if not line or line[0] == "#":
            continue
        if line[0] == "[" and line[-1] == "]" and line[1:-1] in _TABLES and line[1:-1] not in tables:
            table = line[1:-1]
            tables[table] = {}
            continue
        name, rest = split_key(line)
        value, rest = _split_value(rest) if table == SERVER_TABLE else split_string(rest)
        rest = rest.lstrip(" \t")
        if not table or name is None or value is None or name in tables[table] or (rest and rest[0] != "#"):
            return None
        tables[table][name] = value
    return list(tables.get(wanted, {}).items())


def is_bare(name: str) -> bool:
    """Whether TOML takes it for a key without quotes."""
    return bool(name) and set(name) <= _BARE


def split_key(line: str) -> tuple[str | None, str]:
    """The name before the equals sign, None if it is not so simple; and what follows it. line: not empty."""
    if line[0] == '"':
        name, rest = split_string(line)
    else:
        end = next((at for at, c in enumerate(line) if c not in _BARE), len(line))
        name, rest = line[:end] or None, line[end:]
    rest = rest.lstrip(" \t")
    return (name, rest[1:].lstrip(" \t")) if rest[:1] == "=" else (None, "")


def split_string(text: str) -> tuple[str | None, str]:
    """A basic string without escapes, None if it is not so simple; and what follows it."""
    end = text.find('"', 1)
    if text[:1] != '"' or end < 0 or text[:3] == '"""' or "\\" in text[:end]:
        return None, ""
    return text[1:end], text[end + 1 :]


def _split_value(text: str) -> tuple[str | None, str]:
    """A string, a list of strings on this line, true, false or a number, None if it is not so simple; and the rest."""
    if text[:1] == '"':
        return split_string(text)
    if text[:1] != "[":
        end = next((at for at, c in enumerate(text) if c in " \t#"), len(text))
        word = text[:end]
        simple = word in ("true", "false", "0") or (word.isascii() and word.isdigit() and word[0] != "0")
        return (word if simple else None), text[end:]
    text = text[1:].lstrip(" \t")
    while text[:1] != "]":
        item, text = split_string(text)
        text = text.lstrip(" \t")
        if item is None or text[:1] not in (",", "]"):
            return None, ""
        text = text.removeprefix(",").lstrip(" \t")
    return "", text[1:]


def _of_configuration() -> list[ConfiguredServer]:
    try:
        entries = read_table(read_bytes(configuration_path()).decode("utf-8-sig"))
    except OSError as error:
        problem = f"it cannot be read ({error.strerror or error}): make it a file that you may read, or move it"
    except ImportError:
        problem = "it needs the package tomli on Python 3.10: pip install tomli"
    except ValueError as error:
        problem = f"it is not valid TOML: {error}"
    else:
        return [ConfiguredServer(f"{name} = {entry!r}", CONFIGURATION, name, entry) for name, entry in entries.items()]
    wrong = ConfiguredServer("", CONFIGURATION)
    wrong.problem = problem
    return [wrong]


def read_table(text: str, wanted: str = SERVERS_TABLE) -> dict[str, object]:
    """Names and what they stand for, what cannot be used too. Raises ValueError if it is not TOML, ImportError."""
    if _parsed.get(wanted, ("",))[0] != text:
        table = read_lines(text, wanted)
        _parsed[wanted] = text, dict(table) if table is not None else _read_toml(text, wanted)
    return dict(_parsed[wanted][1]) if text else {}


def _read_toml(text: str, wanted: str) -> dict[str, object]:
    """Raises ValueError, and ImportError on Python 3.10 without tomli."""
    from importlib import import_module

    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    table = toml.loads(text.replace("\r\n", "\n")).get(wanted, {})
    if not isinstance(table, dict):
        raise ValueError(f"{wanted} is not a table: write [{wanted}] on a line of its own")
    return table


def _of_line(entry: str, source: str) -> ConfiguredServer:
    name, equals, address = entry.rpartition("=")
    return ConfiguredServer(entry.strip(), source, name if equals else "", address)


def read_bytes(path: str) -> bytes:
    """The file, at most MAX_BYTES of it; empty if there is none. Raises OSError."""
    try:
        # Not blocking: who puts a named pipe there must not stop Wireshark.
        with open(path, "rb", opener=_without_blocking) as file:
            return file.read(MAX_BYTES) or b""
    except FileNotFoundError:
        return b""


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
