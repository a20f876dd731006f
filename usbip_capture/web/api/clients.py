"""Who is connected, and what can be done with them."""

from __future__ import annotations

from dataclasses import replace

from starlette.routing import BaseRoute

from usbip_capture.access.clients import LOCAL, ClientPattern
from usbip_capture.access.devices import ALL, DevicePattern
from usbip_capture.access.rules import ALLOW, DENY, AccessRule
from usbip_capture.errors import DeviceNotFound
from usbip_capture.net.listening import Peer
from usbip_capture.net.ruling import requester_of
from usbip_capture.server.client import Client
from usbip_capture.web.api.access import allow, drop
from usbip_capture.web.api.devices import by
from usbip_capture.web.roles import ADMINISTER, LOOK, OPERATE
from usbip_capture.web.routing import Call, api


def listed(call: Call) -> object:
    """All of them, the longest connected first."""
    operations = call.side.server.operations
    products = {found.plugged.info.busid: found.plugged.product for found in operations.devices}
    return {
        "clients": [
            _client(client, products.get(client.busid, ""), operations.round_trip(client))
            for client in operations.clients
        ]
    }


def disconnect(call: Call) -> object:
    """End one; its device stays exported."""
    client = call.side.server.operations.disconnect_client(_number(call), by(call))
    device = f" from {client.busid}" if client.busid else ""
    return {"ok": True, "outcome": f"client {client.peer} is disconnected{device}"}


def allowed(call: Call) -> object:
    """Add a rule that allows it a device, or all."""
    return _rule(call, ALLOW)


def denied(call: Call) -> object:
    """Add a rule that denies it a device, or all; it loses what it may not have any more."""
    return _rule(call, DENY)


def pattern_of(peer: Peer) -> ClientPattern:
    """Who that is in a rule: what it has proved to be, else this machine, else its address."""
    if peer.identity:
        return ClientPattern.parse(peer.identity)
    return ClientPattern.parse(LOCAL if requester_of(peer).is_local else peer.host.partition("%")[0])


def _rule(call: Call, action: str) -> object:
    """The opposite rule goes: a rule that denies would win. Raises UsbipError."""
    peer = call.side.server.operations.client(_number(call)).peer
    rule = AccessRule(action, pattern_of(peer), DevicePattern.parse(call.text("device", ALL)))
    opposite = replace(rule, action=DENY if action == ALLOW else ALLOW)
    if opposite in set(call.side.server.access.rules):
        drop(call.side.server, opposite)
    return allow(call, rule)


def _number(call: Call) -> int:
    """Raises DeviceNotFound."""
    text = call.path["id"]
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise DeviceNotFound(f"{text!r} is not the number of a client")
    return int(text)


def _client(client: Client, product: str, round_trip: float | None) -> dict[str, object]:
    return {
        "id": client.number,
        "address": str(client.peer),
        "identity": client.peer.identity,
        "busid": client.busid,
        "product": product,
        "since": client.since,
        "imported": client.imported or None,
        "bytes_in": client.bytes_in,
        "bytes_out": client.bytes_out,
        "bytes": client.bytes,
        "urbs": client.urbs,
        "round_trip": round_trip,
    }


_ONE = "/clients/{id}"
ROUTES: list[BaseRoute] = [
    api("GET", "/clients", listed, role=LOOK),
    api("POST", f"{_ONE}/disconnect", disconnect, role=OPERATE),
    api("POST", f"{_ONE}/allow", allowed, role=ADMINISTER),
    api("POST", f"{_ONE}/deny", denied, role=ADMINISTER),
]
