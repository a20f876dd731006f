"""The table `[server]` of the configuration: shown, changed, and back to its defaults."""

from __future__ import annotations

from starlette.routing import BaseRoute

from usbip_capture.access.rules import CLOSED, MODES
from usbip_capture.configuration.values import set_values
from usbip_capture.errors import LocalProtocolError
from usbip_capture.server.events import SETTINGS_CHANGED
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.hook_target import HookTarget
from usbip_capture.servers.server_table import ServerTable, kind_of, read_server_table, server_keys
from usbip_capture.serving.local_server import LocalServer
from usbip_capture.syslog.severity import NOTICE
from usbip_capture.system.shown import one_line
from usbip_capture.web.api.devices import by
from usbip_capture.web.roles import ADMINISTER, LOOK, Refused
from usbip_capture.web.routing import Call, api
from usbip_capture.web.setting_words import WORDS

#: What a running server follows, if nothing else was asked for by its command line.
_EXPORTS = frozenset(("exports", "force"))
_ACCESS = frozenset(("rules", "access", "allow", "allow-public"))
#: What is left alone by defaults: who asks for them in the dashboard wants to see it again.
_DASHBOARD = "web"
#: What is changed in the file only, and why: who signs in with a token is not to run any program on this machine, nor
#: to write any file of it.
_PROGRAMS, _FILES = "may run programs on this machine", "names a file of this machine"
_FIXED = {"hooks": _PROGRAMS, "pcap": _FILES, "audit": _FILES, "unix": _FILES, "client-ca": _FILES}
_KINDS = {tuple: "list", bool: "flag", int: "number", str: "text"}
_NOTHING: tuple[str, ...] = ()
_DEFAULTS = "/settings/defaults"


def listed(call: Call) -> object:
    """All keys, in the order of the documentation."""
    table = read_server_table()
    return {"file": configuration_path(), "settings": [_setting(call.side.server, table, key) for key in server_keys()]}


def change(call: Call) -> object:
    """Write values, `null` for a default; the server follows what can be followed while it runs."""
    if not call.body:
        raise LocalProtocolError("no setting is named: send an object of keys and values")
    return _changed(call, dict(call.body))


def defaults(call: Call) -> object:
    """What would become another value, and the token that confirms it."""
    changes = _to_defaults()
    table = read_server_table()
    shown = [f"{key} from {_shown(_value(table, key))} to {_shown(_value(ServerTable(), key))}" for key in changes]
    text = f"These become as they are at first: {'; '.join(shown)}." if shown else "All settings are as at first."
    kept = "The dashboard's own settings stay. " if any(key.startswith(_DASHBOARD) for key in server_keys()) else ""
    text = f"{text} Nothing is exported then. {kept}Tokens, pairings, leases and captures stay."
    return {"text": text, "keys": list(changes), "confirm": call.side.confirmations.offer(_DEFAULTS, call.user.name)}


def to_defaults(call: Call) -> object:
    """As `defaults` has announced it."""
    call.side.confirmations.check(_DEFAULTS, call.user.name, call.text("confirm"))
    return all_to_defaults(call)


def all_to_defaults(call: Call) -> dict[str, object]:
    """Without asking again. Raises UsbipError."""
    return _changed(call, dict(_to_defaults()))


def _changed(call: Call, changes: dict[str, object]) -> dict[str, object]:
    for key in _FIXED.keys() & changes.keys():
        if changes[key] is not None:
            raise Refused(f"{key} {_FIXED[key]}: change it in {configuration_path()}")
    if "exports" in changes and changes["exports"] is None:
        changes["exports"] = []  # without the key, the server would not start
    server = call.side.server
    keys = set_values(configuration_path(), changes)
    if not keys:
        return {"ok": True, "outcome": "nothing is changed: it is so already", "restart": False}
    server.events.emit(SETTINGS_CHANGED, NOTICE, text=", ".join(keys), by=by(call))
    server.reload()
    table = read_server_table()
    now = [key for key in keys if not _needs_restart(server, key)]
    never = [key for key in keys if _is_given(server, key)]
    later = [key for key in keys if key not in (*now, *never)]
    parts = [f"{', '.join(_become(table, key) for key in now)} now"] if now else []
    parts += [f"{', '.join(_become(table, key) for key in later)} from the next start on"] if later else []
    if never:
        parts.append(f"{', '.join(never)}: written, but the command line of this server has it, and counts")
    return {"ok": True, "outcome": "; ".join(parts), "restart": bool(later)}


def _setting(server: LocalServer, table: ServerTable, key: str) -> dict[str, object]:
    words = WORDS.get(key)
    return {
        "key": key,
        "value": _value(table, key),
        "default": _value(ServerTable(), key),
        "kind": _KINDS[kind_of(key)],
        "choices": list(MODES) if key == "access" else [],
        "help": words.help if words else "",
        "group": words.group if words else "",
        "restart": _needs_restart(server, key),
        "given": _is_given(server, key),
        "running": _running(server, key),
        "fixed": key in _FIXED,
    }


def _needs_restart(server: LocalServer, key: str) -> bool:
    """Also where the command line has it, and only a start without that would follow."""
    return not ((key in _EXPORTS and server.follows) or (key in _ACCESS and server.access.follows))


def _is_given(server: LocalServer, key: str) -> bool:
    """Whether the command line has it, so that the configuration does not count."""
    if key in _EXPORTS | _ACCESS:
        return _needs_restart(server, key)
    return server.restart is not None and key.replace("-", "_") in server.restart.given


def _running(server: LocalServer, key: str) -> str:
    """What the command line has for it, for people; empty where the configuration counts."""
    if not _is_given(server, key):
        return ""
    if key == "exports":
        return _shown(server.rules)
    table = server.restart.running if server.restart is not None and key not in _ACCESS else None
    return "" if table is None else _shown(_value(table, key))


def _to_defaults() -> dict[str, object]:
    """The changes that lead there: of each key that has another value."""
    table = read_server_table()
    keys = (key for key in server_keys() if not key.startswith(_DASHBOARD))
    return {key: None for key in keys if _value(table, key) != _value(ServerTable(), key)}


def _value(table: ServerTable, key: str) -> object:
    """In JSON's types; what is not there as what it means, and of what may be secret, as hooks, what is not."""
    value = getattr(table, key.replace("-", "_"))
    if key == "hooks":
        return [str(HookTarget.parse(text)) for text in value]
    if key == "access":
        return value or CLOSED
    return list(value or _NOTHING) if kind_of(key) is tuple else value


def _become(table: ServerTable, key: str) -> str:
    return f"{key} is {_shown(_value(table, key))}"


def _shown(value: object) -> str:
    if value is None:
        return "as the addresses need it"  # of announce
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return one_line(", ".join(value)) or "empty"
    return one_line(str(value)) or "empty"


ROUTES: list[BaseRoute] = [
    api("GET", "/settings", listed, role=LOOK),
    api("PATCH", "/settings", change, role=ADMINISTER),
    api("GET", _DEFAULTS, defaults, role=ADMINISTER),
    api("POST", _DEFAULTS, to_defaults, role=ADMINISTER),
]
