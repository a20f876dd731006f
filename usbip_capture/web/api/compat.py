"""The paths, fields and messages of `usbip-esp32p4`, so that scripts for it work with this server.

What a PC does not have, such as a static address that we could set, is 501; the roles and checks are those of
`/api/v1`. Ref: github.com/DatanoiseTV/usbip-esp32p4, components/webui
"""

from __future__ import annotations

import asyncio
import json
import platform
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

import usbip_capture
from usbip_capture.access.clients import NETWORK, ClientPattern
from usbip_capture.access.devices import ALL, DevicePattern
from usbip_capture.access.rules import ALLOW, CLOSED, OPEN, AccessRule
from usbip_capture.configuration.values import set_values
from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.server_table import read_server_table
from usbip_capture.serving.operations import NotPossible
from usbip_capture.system.memory import available
from usbip_capture.web.api.access import change_rules
from usbip_capture.web.api.devices import by
from usbip_capture.web.api.settings import all_to_defaults
from usbip_capture.web.api.system import checked_restart
from usbip_capture.web.roles import ADMINISTER, LOOK, OPERATE
from usbip_capture.web.routing import Call, NotHere, api, live
from usbip_capture.web.seed_data import detail, listed, logs, uptime
from usbip_capture.web.side import WebSide

if TYPE_CHECKING:
    from usbip_capture.serving.operations import Standing

_PREFIX = "/api"
#: Seconds between two messages, and in which a browser has to take one.
_PERIOD, _TIMEOUT = 0.5, 30.0
_NOT_HERE = "is a matter of this machine's own system: change it there"
_ADDRESSES = ("static_ip", "netmask", "gateway", "dns")
_OK = {"ok": True}


def devices(call: Call) -> object:
    """What is plugged in but hubs."""
    found = call.side.seed_view.devices(call.side)
    return [listed(number, standing) for number, standing in found.items()]


def device(call: Call) -> object:
    """One of them, with its descriptors and counters."""
    number, standing = _meant(call)
    return detail(call.side, number, standing)


def reset(call: Call) -> object:
    """Reset it, whether a client has it or not."""
    call.side.server.operations.reset(_busid(call), by(call))
    return _OK


def disconnect(call: Call) -> object:
    """End its client, if it has one."""
    with suppress(NotPossible):  # nobody has it, as was wanted
        call.side.server.operations.disconnect(_busid(call), by(call))
    return _OK


def export(call: Call) -> object:
    """Export it if it is not, and no more if it is."""
    _toggle(call.side, _meant(call)[1], by(call))
    return _OK


def stats(call: Call) -> object:
    """The server in short."""
    return {
        "free_heap": available(),
        "uptime_sec": uptime(call.side),
        "device_count": len(call.side.seed_view.devices(call.side)),
        "ip": _own_address(call),
        "idf_version": _python(),
    }


def latest_logs(call: Call) -> object:
    """Events, the newest first."""
    return logs(call.side)


def network(call: Call) -> object:
    """The name; addresses are the system's."""
    return {"hostname": _name(call), "dhcp": True, **dict.fromkeys(_ADDRESSES, "")}


def set_network(call: Call) -> object:
    """Have another name from the next start on. Raises NotHere for all else."""
    for key in _ADDRESSES:
        if call.text(key, ""):
            raise NotHere(f"{key} {_NOT_HERE}")
    if call.body.get("dhcp", True) not in (True, "true"):
        raise NotHere(f"dhcp {_NOT_HERE}")
    name = call.text("hostname", _name(call))
    if name != _name(call):  # what is sent as it was is not to be written
        set_values(configuration_path(), {"name": name or None})
    return {"ok": True, "reboot_required": True}


def auth(call: Call) -> object:
    """A token is always needed; the name of the one that was used."""
    return {"enabled": True, "username": call.user.name}


def set_auth(call: Call) -> object:
    """Raises NotHere."""
    raise NotHere("this server has tokens in place of a password: make them at /api/v1/tokens")


def acl(call: Call) -> object:
    """The mode, and the addresses and networks that may have all devices."""
    rules = call.side.server.access.rules
    return {"closed": rules.mode == CLOSED, "allowlist": [str(rule.client) for rule in rules if _is_listed(rule)]}


def set_acl(call: Call) -> object:
    """Change the mode, the list, or both; what is not sent stays."""
    mode = ""
    if "closed" in call.body:
        mode = CLOSED if call.flag("closed") else OPEN
    listed_now = [rule for rule in call.side.server.access.rules if _is_listed(rule)]
    wanted = listed_now
    if "allowlist" in call.body:
        given = call.body["allowlist"]
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise LocalProtocolError("allowlist must be a list of addresses")
        wanted = [AccessRule(ALLOW, _network(text), DevicePattern(ALL)) for text in given]
    added = [rule for rule in wanted if rule not in listed_now]
    change_rules(call.side.server, mode, added, [rule for rule in listed_now if rule not in wanted])
    return _OK


def info(call: Call) -> object:
    """The system."""
    return {
        "version": usbip_capture.__version__,
        "idf_version": _python(),
        "chip": platform.machine(),
        "revision": "",
        "heap_free": available(),
        "heap_internal": 0,
        "uptime_sec": uptime(call.side),
    }


def restart(call: Call) -> object:
    """End and start again, once the answer is sent."""
    wanted = checked_restart(call)
    answer = {"ok": True, "status": "restarting", "message": "restarting"}
    return JSONResponse(answer, background=BackgroundTask(wanted.request))


def factory_reset(call: Call) -> object:
    """All settings as they are at first, but the dashboard's; then a restart."""
    wanted = checked_restart(call)
    all_to_defaults(call)
    return JSONResponse({"ok": True, "message": "factory reset"}, background=BackgroundTask(wanted.request))


async def messages(websocket: WebSocket, side: WebSide) -> None:
    """The server's figures twice a second, until the browser leaves or takes nothing any more."""
    await websocket.accept()
    tasks = [asyncio.create_task(_send(websocket, side)), asyncio.create_task(_receive(websocket, side))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(websocket: WebSocket, side: WebSide) -> None:
    """Raises WebSocketDisconnect, RuntimeError, TimeoutError."""
    while True:
        text = await run_in_threadpool(side.seed_view.message, side)
        await asyncio.wait_for(websocket.send_text(text), _TIMEOUT)
        await asyncio.sleep(_PERIOD)


async def _receive(websocket: WebSocket, side: WebSide) -> None:
    """What the page asks for; what it may not, or cannot be understood, is left out, as there is no answer to it."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        with suppress(UsbipError, ValueError, RecursionError):
            wanted = json.loads(message.get("text") or "null")
            if isinstance(wanted, dict) and wanted.get("action") == "toggle_export":
                user = websocket.app.state.authenticate(websocket)
                user.check(OPERATE)
                await run_in_threadpool(_toggle_at, side, str(wanted.get("busid")), f"web:{user.name}")


def _name(call: Call) -> str:
    return read_server_table().name or call.side.server.name


def _toggle_at(side: WebSide, busid: str, by: str) -> None:
    _toggle(side, side.server.operations.device(busid), by)


def _toggle(side: WebSide, standing: Standing, by: str) -> None:
    """Raises UsbipError."""
    busid = standing.plugged.info.busid
    if standing.exported is None:
        side.server.operations.export(busid)
    else:
        side.server.operations.withdraw(busid, by)


def _meant(call: Call) -> tuple[int, Standing]:
    """Raises LocalProtocolError, DeviceNotFound."""
    text = call.query.get("idx", "")
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise LocalProtocolError(f"{text!r} is not the idx of a device" if text else "missing idx")
    return int(text), call.side.seed_view.device(call.side, int(text))


def _busid(call: Call) -> str:
    return _meant(call)[1].plugged.info.busid


def _is_listed(rule: AccessRule) -> bool:
    return rule.action == ALLOW and rule.client.kind == NETWORK and rule.device.key == DevicePattern(ALL).key


def _network(text: str) -> ClientPattern:
    """Raises LocalProtocolError."""
    pattern = ClientPattern.parse(text)
    if pattern.kind != NETWORK:
        raise LocalProtocolError(f"{text!r} is not an address: write one such as 192.0.2.7")
    return pattern


def _own_address(call: Call) -> str:
    """At which this client has reached us."""
    server = call.request.scope.get("server")
    return str(server[0]) if server else ""


def _python() -> str:
    return f"Python {platform.python_version()}"


ROUTES: list[BaseRoute] = [
    api("GET", "/devices", devices, LOOK, _PREFIX),
    api("GET", "/devices/detail", device, LOOK, _PREFIX),
    api("POST", "/devices/reset", reset, OPERATE, _PREFIX),
    api("POST", "/devices/disconnect", disconnect, OPERATE, _PREFIX),
    api("POST", "/devices/export", export, OPERATE, _PREFIX),
    api("GET", "/stats", stats, LOOK, _PREFIX),
    api("GET", "/logs", latest_logs, LOOK, _PREFIX),
    api("GET", "/settings/network", network, LOOK, _PREFIX),
    api("POST", "/settings/network", set_network, ADMINISTER, _PREFIX),
    api("GET", "/settings/auth", auth, LOOK, _PREFIX),
    api("POST", "/settings/auth", set_auth, ADMINISTER, _PREFIX),
    api("GET", "/settings/acl", acl, LOOK, _PREFIX),
    api("POST", "/settings/acl", set_acl, ADMINISTER, _PREFIX),
    api("GET", "/system/info", info, LOOK, _PREFIX),
    api("POST", "/restart", restart, ADMINISTER, _PREFIX),
    api("POST", "/system/restart", restart, ADMINISTER, _PREFIX),
    api("POST", "/system/factory-reset", factory_reset, ADMINISTER, _PREFIX),
    live("/ws", messages, LOOK, prefix=""),
]
