"""Who may have which device: shown, changed, and what a client would get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

from usbip_capture.access.clients import CERT, LOCAL, PAIRED, ClientPattern
from usbip_capture.access.rules import MODES, AccessRule
from usbip_capture.configuration.access import add_rules, remove_rules, set_mode
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.net.address import format_address
from usbip_capture.net.listening import Peer
from usbip_capture.net.ruling import requester_of
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.server_table import read_server_table
from usbip_capture.serving.rules_in_force import rules_of
from usbip_capture.web.roles import ADMINISTER, LOOK
from usbip_capture.web.routing import Call, Conflict, NotFound, api

if TYPE_CHECKING:
    from usbip_capture.lending.lender import Exported
    from usbip_capture.serving.local_server import LocalServer

_CONFIGURATION, _COMMAND_LINE = "configuration", "command line"
#: An address of documentation, which is nobody's: for who is checked by name.
_NOBODY = "192.0.2.1"


def shown(call: Call) -> object:
    """The mode and the rules in force, where they come from, where clients connect, and who is paired."""
    server = call.side.server
    return {
        "mode": server.access.rules.mode,
        "rules": _rules(server),
        "follows": server.access.follows,
        "listening": _listening(server),
        "paired": _paired(server),
    }


def set_access_mode(call: Call) -> object:
    """Open or closed, in the configuration and now."""
    mode = call.text("mode")
    if mode not in MODES:
        raise LocalProtocolError(f"{mode!r} is not a mode of access: give open or closed")
    changed = set_mode(configuration_path(), mode)
    _follow(call.side.server, mode=mode)
    return _done(f"access is{'' if changed else ' already'} {mode}")


def add_rule(call: Call) -> object:
    """One more rule, in the configuration and now."""
    return allow(call, AccessRule.parse(call.text("rule")))


def allow(call: Call, rule: AccessRule) -> dict[str, object]:
    """Add this rule, which allows or denies; what came of it. Raises UsbipError."""
    added = add_rules(configuration_path(), [rule])
    _follow(call.side.server, added=[rule])
    return _done(f"the rule `{rule}` is {'in force' if added else 'there already'}")


def drop(server: LocalServer, rule: AccessRule) -> None:
    """Have this rule no more, in the configuration and now. Raises UsbipError."""
    remove_rules(configuration_path(), [rule])
    _follow(server, removed=[rule])


def remove_rule(call: Call) -> object:
    """A rule less, in the configuration and now."""
    rule = AccessRule.parse(call.named("rule"))
    server = call.side.server
    in_memory = rule in set(server.access.rules)
    removed = remove_rules(configuration_path(), [rule])
    _follow(server, removed=[rule])
    if not removed and not in_memory:
        raise NotFound(f"there is no rule `{rule}`: name one as it is listed")
    if rule in set(server.access.in_force):
        raise Conflict(f"the rule `{rule}` is in force all the same: it is written in a wider form: see {_where()}")
    return _done(f"the rule `{rule}` is removed")


def change_rules(server: LocalServer, mode: str, added: list[AccessRule], removed: list[AccessRule]) -> None:
    """All at once. mode: or empty. Raises UsbipError."""
    path = configuration_path()
    if added:
        add_rules(path, added)
    if removed:
        remove_rules(path, removed)
    if mode:
        set_mode(path, mode)
    _follow(server, mode=mode, added=added, removed=removed)


def check(call: Call) -> object:
    """Which devices a client would get, and why."""
    client = call.text("client").strip()
    peer = _peer(client)
    server = call.side.server
    return {"client": client, "devices": [_decided(server, peer, exported) for exported in server.exported]}


def _decided(server: LocalServer, peer: Peer, exported: Exported) -> dict[str, object]:
    decided = server.access.in_force.deciding(requester_of(peer), exported.info, exported.serial)
    found: dict[str, object] = {
        "busid": exported.info.busid,
        "product": exported.product,
        "allowed": decided.allowed,
        "rule": "" if decided.rule is None else str(decided.rule),
        "reason": decided.reason or "access is open, or it is this machine" * (decided.rule is None),
    }
    reserved = server.leases.decision(peer, exported.info)
    if decided.allowed and not reserved.allowed:
        found |= {"allowed": False, "rule": reserved.rule, "reason": reserved.reason}
    return found


def _peer(client: str) -> Peer:
    """Raises LocalProtocolError."""
    pattern = ClientPattern.parse(client)
    if pattern.kind == LOCAL:
        return Peer()
    if pattern.kind in (PAIRED, CERT) and pattern.name:
        return Peer(_NOBODY, identity=client)
    if pattern.network is not None and pattern.network.num_addresses == 1:
        return Peer(str(pattern.network.network_address))
    raise LocalProtocolError(f"{client!r} is not one client: give an address, local, paired:NAME or cert:NAME")


def _rules(server: LocalServer) -> list[dict[str, str]]:
    try:
        written = set(rules_of(read_server_table()))
    except UsbipError:  # what was read before is in force
        written = set(server.access.rules) if server.access.follows else set()
    rules = server.access.rules
    found = [{"rule": str(rule), "source": _CONFIGURATION if rule in written else _COMMAND_LINE} for rule in rules]
    paired = list(server.access.in_force)[len(rules) :]
    return found + [{"rule": str(rule), "source": PAIRED} for rule in paired]


def _listening(server: LocalServer) -> list[str]:
    within_tls = [] if server.tls is None else server.tls.addresses
    return [
        *(format_address(*place) for place in server.addresses),
        *(f"tls://{format_address(*place)}" for place in within_tls),
        *([f"unix:{server.unix}"] if server.unix else []),
    ]


def _paired(server: LocalServer) -> list[dict[str, object]]:
    if server.tls is None:
        return []
    clients = server.tls.pairing.clients
    return [{"name": one.name, "fingerprint": one.fingerprint, "since": one.since} for one in clients]


def _follow(
    server: LocalServer, *, mode: str = "", added: list[AccessRule] | None = None,
    removed: list[AccessRule] | None = None,
) -> None:  # fmt: skip
    """Raises UsbipError."""
    if not server.access.change(mode, added or [], removed or []):
        raise UsbipError(f"{_where()} cannot be read: who may have which device stays as it was")


def _where() -> str:
    return configuration_path()


def _done(outcome: str) -> dict[str, object]:
    return {"ok": True, "outcome": outcome}


ROUTES: list[BaseRoute] = [
    api("GET", "/access", shown, role=LOOK),
    api("PUT", "/access/mode", set_access_mode, role=ADMINISTER),
    api("POST", "/access/rules", add_rule, role=ADMINISTER),
    api("DELETE", "/access/rules", remove_rule, role=ADMINISTER),
    api("POST", "/access/check", check, role=LOOK),
]
