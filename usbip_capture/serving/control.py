"""What a running server does when it is asked on its control socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from usbip_capture.errors import DeviceNotFound, RemoteProtocolError, UsbipError
from usbip_capture.live.messages import Message, number, text
from usbip_capture.net.address import format_address
from usbip_capture.server.described import as_data, sentence
from usbip_capture.server.events import POWER, RESET, Events
from usbip_capture.serving.access_requests import access_handlers, access_of
from usbip_capture.serving.dashboard_requests import dashboard_handlers, dashboard_status
from usbip_capture.serving.lease_requests import lease_handlers, turns_of
from usbip_capture.serving.pairing_requests import pairing_handlers, tls_status
from usbip_capture.serving.ports import Ports, check_exported
from usbip_capture.syslog.severity import NOTICE

if TYPE_CHECKING:
    from usbip_capture.lending.lender import Exported, Lender
    from usbip_capture.server.client import Client
    from usbip_capture.serving.local_server import LocalServer


#: Events in one answer; seconds that one who follows waits in the server, less than requests get at its end.
MOST, _WAIT = 200, 0.5


def handlers_for(server: LocalServer, lender: Lender, ports: Ports) -> Mapping[str, Callable[[Message], Message]]:
    """The requests by name. Each takes the fields of a request and returns those of the answer; raises UsbipError."""

    def kick(request: Message) -> Message:
        busid = text(request, "busid")
        check_exported(lender, busid)
        if not server.disconnect(busid):
            raise DeviceNotFound(f"nobody has {busid}")
        return {}

    def reset(request: Message) -> Message:
        ports.reset(text(request, "busid"))
        server.events.emit(RESET, NOTICE, busid=text(request, "busid"), by="user")
        return {}

    def power(request: Message) -> Message:
        ports.switch_power(text(request, "busid"), text(request, "action"))
        server.events.emit(POWER, NOTICE, busid=text(request, "busid"), text=text(request, "action"), by="user")
        return {}

    return {
        "status": lambda request: _status(server),
        "clients": lambda request: {"clients": _clients(server)},
        "events": lambda request: _events(server.events, number(request, "after"), number(request, "last", MOST)),
        "kick": kick,
        "reset": reset,
        "power": power,
        "bind": lambda request: _bind(server, request),
        **access_handlers(server.access),
        **lease_handlers(server.leases, lender),
        **pairing_handlers(server.tls),
        **dashboard_handlers(lambda: server.dashboard),
    }


def _status(server: LocalServer) -> Message:
    users = {client.busid: client for client in server.clients if client.busid}
    return {
        "name": server.name,
        "pid": os.getpid(),
        "addresses": [format_address(*place) for place in server.addresses],
        "unix": server.unix,
        "rules": server.rules,
        "follows": server.follows,
        **access_of(server.access),
        **tls_status(server.tls),
        **dashboard_status(server.dashboard),
        "audit": [
            {"target": str(output.target), "written": output.written, "lost": output.lost, "trouble": output.trouble}
            for output in server.audit.outputs
        ],
        "devices": [
            {**_device(server, exported), "rule": str(exported.rule), "client": str(users[exported.info.busid].peer)
             if exported.info.busid in users else ""}
            for exported in server.exported
        ],
    }  # fmt: skip


def _events(events: Events, after: int, last: int) -> Message:
    """Those that follow the number `after`, but not more than the `last` ones; waits a moment for the first of them."""
    found = events.after(min(max(after, events.last - last), events.last), MOST, _WAIT)
    return {"events": [{**as_data(event), "sentence": sentence(event)} for event in found], "last": events.last}


def _clients(server: LocalServer) -> list[Message]:
    devices = {exported.info.busid: _device(server, exported) for exported in server.exported}
    return [{**_client(client), **devices.get(client.busid, {})} for client in server.clients]


def _client(client: Client) -> Message:
    """since, imported: seconds since 1970; imported is 0 for one without a device."""
    return {
        "client": str(client.peer),
        "since": client.since,
        "busid": client.busid,
        "imported": client.imported,
        "urbs": client.urbs,
        "bytes": client.bytes,
    }


def _device(server: LocalServer, exported: Exported) -> Message:
    """leases: the turn that goes on, and those that come next."""
    vendor, product = exported.info.vid_pid
    return {
        "busid": exported.info.busid,
        "vid_pid": f"{vendor:04x}:{product:04x}",
        "product": exported.product,
        "serial": exported.serial,
        "leases": turns_of(server.leases, exported.info.busid),
    }


def _bind(server: LocalServer, request: Message) -> Message:
    """Rules were added to the configuration, or removed from it. always: also where that is not what is followed."""
    rules, removing = request.get("rules"), bool(request.get("remove"))
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise RemoteProtocolError("rules on the channel are not a list of texts")
    changed = server.follows or bool(request.get("always"))
    if server.follows:
        if not server.reload():
            raise UsbipError(f"the server {server.name} cannot read the configuration: what it exported before stays")
    elif changed:
        for rule in rules:
            if removing:
                server.remove_rule(rule)
            else:
                server.add_rule(rule)
    return {"follows": server.follows, "changed": changed, **_status(server)}
