"""The devices of this machine: shown, and what can be done with each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from starlette.routing import BaseRoute

from usbip_capture.describe.unopened import describe_unopened
from usbip_capture.describe.verbose import verbose
from usbip_capture.devices import uses
from usbip_capture.errors import DeviceNotFound, LocalProtocolError, RemoteProtocolError, UsbipError
from usbip_capture.lending.plugged import Described, Plugged
from usbip_capture.serving.operations import losses
from usbip_capture.serving.ports import CYCLE, OFF, ON
from usbip_capture.usb.descriptors import parse_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.web.device_data import device_data, devices_data
from usbip_capture.web.endpoint_data import endpoints_data
from usbip_capture.web.history import INTERVAL
from usbip_capture.web.roles import LOOK, OPERATE
from usbip_capture.web.routing import Call, NotHere, api

if TYPE_CHECKING:
    from usbip_capture.devices.libusb.local_device import LocalDevice

_EJECT = "its client is disconnected, and it is not exported until it is plugged in again or exported by hand"
_POWER = {OFF: "has no power now", ON: "has power now", CYCLE: "was without power, and has it again"}


def listed(call: Call) -> object:
    """All of them, as a tree by `parent`."""
    return {"devices": devices_data(call.side)}


def shown(call: Call) -> object:
    """One of them, with its descriptors and what its endpoints have done."""
    operations, busid = call.side.server.operations, call.path["busid"]
    hubs = {str(device["busid"]): device for device in devices_data(call.side)}
    if busid in hubs and busid not in {found.plugged.info.busid for found in operations.devices}:
        empty = {"strings": _strings(None), "descriptors": "", "endpoints": [], "uses": []}
        return {**hubs[busid], **empty}
    standing = operations.device(busid)
    plugged = standing.plugged
    figures = operations.count().find(plugged.info)
    return {
        **device_data(call.side, standing, operations.hub_ports),
        "strings": _strings(plugged),
        "descriptors": _descriptors(plugged),
        "endpoints": endpoints_data(_known_endpoints(plugged), figures.endpoints if figures else []),
        "uses": [str(use) for use in uses.uses(plugged.sysfs)],
    }


def history(call: Call) -> object:
    """Bytes a second of the last ten minutes."""
    busid, operations = call.path["busid"], call.side.server.operations
    if busid not in operations.ports_off:
        operations.device(busid)
    series = call.side.history.series(busid)
    into, out = ([round(rate[which]) for rate in series.rates] for which in (0, 1))
    return {"interval": INTERVAL, "times": series.times, "in": into, "out": out}


def export(call: Call) -> object:
    """Export it, or not, whatever the rules are."""
    busid, operations = call.path["busid"], call.side.server.operations
    if call.flag("on"):
        standing = operations.export(busid)
        lost = losses(standing.plugged)
        warning = f"; it is {', '.join(lost)}: a client that attaches it takes it from here" if lost else ""
        return _done(f"{busid} is exported{warning}")
    client = operations.withdraw(busid, by(call)).client
    return _done(f"{busid} is not exported any more{f', and client {client.peer} has lost it' if client else ''}")


def disconnect(call: Call) -> object:
    """End its client; the device stays exported."""
    client = call.side.server.operations.disconnect(call.path["busid"], by(call))
    return _done(f"client {client.peer} is disconnected from {call.path['busid']}")


def reset(call: Call) -> object:
    """Reset it, whether a client has it or not."""
    call.side.server.operations.reset(call.path["busid"], by(call))
    return _done(f"{call.path['busid']} was reset")


def announce_eject(call: Call) -> object:
    """What ejecting it does."""
    standing = call.side.server.operations.device(call.path["busid"])
    client = f" Client {standing.client.peer} has it now." if standing.client else ""
    return {"text": f"{call.path['busid']} is ejected: {_EJECT}.{client}"}


def eject(call: Call) -> object:
    """As announced."""
    call.side.server.operations.eject(call.path["busid"], by(call))
    return _done(f"{call.path['busid']} is ejected: {_EJECT}")


def power(call: Call) -> object:
    """Switch the power of its port."""
    busid, action = call.path["busid"], call.text("action")
    if action not in _POWER:
        raise LocalProtocolError(f"{action!r} cannot be done to a port: it is {OFF}, {ON} or {CYCLE}")
    try:
        call.side.server.operations.switch_power(busid, action, by(call))
    except DeviceNotFound:
        raise
    except UsbipError as error:
        raise NotHere(str(error)) from error
    return _done(f"the port {busid} {_POWER[action]}")


def by(call: Call) -> str:
    """Who asks, as events have it."""
    return f"web:{call.user.name}"


def _done(outcome: str) -> dict[str, object]:
    return {"ok": True, "outcome": outcome}


def _strings(plugged: Plugged | None) -> dict[str, str]:
    return {name: getattr(plugged, name, "") for name in ("manufacturer", "product", "serial")}


def _descriptors(plugged: Plugged) -> str:
    """As `list -v` prints them; empty where they are not known without opening it."""
    if not isinstance(plugged, Described):
        return ""
    try:
        return "\n".join(verbose(describe_unopened(cast("LocalDevice", plugged))))
    except RemoteProtocolError as error:
        return f"its descriptors cannot be read: {error}"


def _known_endpoints(plugged: Plugged) -> EndpointMap:
    """Those of its configuration, as far as the descriptors are known."""
    found = EndpointMap(None, plugged.info.speed)
    for raw in plugged.configurations if isinstance(plugged, Described) else ():
        with suppress(RemoteProtocolError):
            found.add_configuration(parse_configuration(raw))
    found.activate(plugged.info.bConfigurationValue)
    return found


_ONE = "/devices/{busid}"
ROUTES: list[BaseRoute] = [
    api("GET", "/devices", listed, role=LOOK),
    api("GET", _ONE, shown, role=LOOK),
    api("GET", f"{_ONE}/history", history, role=LOOK),
    api("POST", f"{_ONE}/export", export, role=OPERATE),
    api("POST", f"{_ONE}/disconnect", disconnect, role=OPERATE),
    api("POST", f"{_ONE}/reset", reset, role=OPERATE),
    api("GET", f"{_ONE}/eject", announce_eject, role=LOOK),
    api("POST", f"{_ONE}/eject", eject, role=OPERATE),
    api("POST", f"{_ONE}/power", power, role=OPERATE),
]
