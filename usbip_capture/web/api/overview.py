"""The server at a glance."""

from __future__ import annotations

import time

from starlette.routing import BaseRoute

import usbip_capture
from usbip_capture.net.address import format_address
from usbip_capture.serving.operations import HUB, IN_USE
from usbip_capture.system.memory import installed, resident
from usbip_capture.web.event_data import event_data
from usbip_capture.web.roles import LOOK
from usbip_capture.web.routing import Call, api

#: Events that are shown.
_NEWEST = 15


def overview(call: Call) -> object:
    """Times in seconds since 1970, rates in bytes and URBs a second; the newest event first."""
    side = call.side
    server = side.server
    devices = [found for found in server.operations.devices if found.state != HUB]
    latest, events = side.history.latest, server.events
    addresses = [format_address(*place) for place in server.addresses]
    within_tls = [format_address(*place) for place in server.tls.addresses] if server.tls else []
    return {
        "name": server.name,
        "version": usbip_capture.__version__,
        "started": side.started,
        "uptime": time.time() - side.started,
        "time": time.time(),
        "addresses": [*addresses, *(f"{place} (TLS)" for place in within_tls), *filter(None, [server.unix])],
        "devices": {
            "plugged": len(devices),
            "exported": sum(found.exported is not None for found in devices),
            "in_use": sum(found.state == IN_USE for found in devices),
        },
        "clients": len(server.operations.clients),
        "throughput": {"in": round(latest.rate[0]), "out": round(latest.rate[1]), "urbs": round(latest.urbs)},
        "memory": {"rss": resident(), "total": installed()},
        "captures": side.captures(str(call.request.base_url)),
        "events": [event_data(event) for event in reversed(events.after(max(events.last - _NEWEST, 0), _NEWEST))],
    }


ROUTES: list[BaseRoute] = [api("GET", "/overview", overview, role=LOOK)]
