"""What is exported, by rules: shown, added, removed."""

from __future__ import annotations

from starlette.routing import BaseRoute

from usbip_capture.configuration.exports import add_exports, remove_exports
from usbip_capture.errors import UsbipError
from usbip_capture.server.rules import ExportRule
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.serving.local_server import LocalServer
from usbip_capture.web.roles import ADMINISTER, LOOK
from usbip_capture.web.routing import Call, NotFound, api


def listed(call: Call) -> object:
    """The rules, and what is plugged in that each has exported."""
    server = call.side.server
    by_rule: dict[str, list[str]] = {}
    for exported in server.exported:
        by_rule.setdefault(str(exported.rule), []).append(exported.info.busid)
    rules = [{"rule": rule, "busids": by_rule.get(rule, [])} for rule in server.rules]
    return {"exports": rules, "follows": server.follows}


def add(call: Call) -> object:
    """One more rule, in the configuration and now."""
    rule = ExportRule.parse(call.text("rule"))
    server = call.side.server
    added = add_exports(configuration_path(), [rule]) or str(rule) not in server.rules
    if server.follows:
        _reload(server)
    else:
        server.add_rule(str(rule))
    return {"ok": True, "outcome": f"{rule} is {'' if added else 'already '}to be exported: {_exported(server, rule)}"}


def remove(call: Call) -> object:
    """A rule less, in the configuration and now."""
    rule = ExportRule.parse(call.named("rule"))
    server = call.side.server
    known = str(rule) in server.rules
    removed = remove_exports(configuration_path(), [rule])
    if server.follows:
        _reload(server)
    else:
        server.remove_rule(str(rule))
    if not removed and not known:
        raise NotFound(f"{rule} is not to be exported: name a rule as it is listed")
    return {"ok": True, "outcome": f"{rule} is not to be exported any more"}


def _exported(server: LocalServer, rule: ExportRule) -> str:
    busids = [exported.info.busid for exported in server.exported if exported.rule == rule]
    return ", ".join(busids) or "no further device that is plugged in"


def _reload(server: LocalServer) -> None:
    """Raises UsbipError."""
    if not server.reload():
        raise UsbipError(f"{configuration_path()} cannot be read: what was exported before still is")


ROUTES: list[BaseRoute] = [
    api("GET", "/exports", listed, role=LOOK),
    api("POST", "/exports", add, role=ADMINISTER),
    api("DELETE", "/exports", remove, role=ADMINISTER),
]
