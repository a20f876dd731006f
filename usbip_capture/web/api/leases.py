"""Devices that are reserved: who has them until when, and who comes next."""

from __future__ import annotations

import time

from starlette.routing import BaseRoute

from usbip_capture.access.clients import LOCAL
from usbip_capture.errors import DeviceNotFound, LocalProtocolError
from usbip_capture.serving.lease_requests import turns_of
from usbip_capture.system.local_time import local_time
from usbip_capture.web.roles import LOOK, OPERATE
from usbip_capture.web.routing import Call, api


def listed(call: Call) -> object:
    """By device, the turn that goes on first."""
    leases = call.side.server.leases
    return {"leases": [{"busid": busid, "turns": turns_of(leases, busid)} for busid in sorted(leases.busids())]}


def reserve(call: Call) -> object:
    """One more turn; for this machine if no client is named."""
    server = call.side.server
    busid, seconds = call.text("busid"), call.body.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise LocalProtocolError("seconds must be a number" if "seconds" in call.body else "seconds is missing")
    if not any(exported.info.busid == busid for exported in server.exported):
        raise DeviceNotFound(f"{busid} is not exported: reserve what is")
    turn = server.leases.reserve(busid, seconds, call.text("client", LOCAL))
    now = time.time()
    when = f"until {local_time(turn.until, now)}"
    if turn.begins > now:
        when = f"from {local_time(turn.begins, now)} {when}"
    return {"ok": True, "outcome": f"{busid} is reserved for {turn.holder} {when}"}


def release(call: Call) -> object:
    """The turn that goes on, or all turns of a client."""
    busid, client = call.named("busid"), call.named("client", "")
    call.side.server.leases.release(busid, client)
    return {
        "ok": True,
        "outcome": f"{busid} is not reserved for {client} any more" if client else f"{busid} is released",
    }


ROUTES: list[BaseRoute] = [
    api("GET", "/leases", listed, role=LOOK),
    api("POST", "/leases", reserve, role=OPERATE),
    api("DELETE", "/leases", release, role=OPERATE),
]
