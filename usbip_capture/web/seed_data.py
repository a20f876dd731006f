"""Devices, events and figures as scripts for `usbip-esp32p4` expect them.

What this system does not have is 0 or empty. Ref: github.com/DatanoiseTV/usbip-esp32p4, components/webui
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING

from usbip_capture.errors import DeviceNotFound, RemoteProtocolError
from usbip_capture.lending.plugged import Described, Plugged
from usbip_capture.server.described import sentence
from usbip_capture.serving.operations import HELD, HUB, IN_USE, Standing
from usbip_capture.syslog.severity import ERROR, INFO, WARNING
from usbip_capture.system.memory import available
from usbip_capture.usb.descriptors import ConfigurationDescriptor, parse_configuration
from usbip_capture.usb.info import Speed
from usbip_capture.usb.urb import DIR_IN

if TYPE_CHECKING:
    from usbip_capture.server.events import Event
    from usbip_capture.server.figures import Totals
    from usbip_capture.web.side import WebSide

_AVAILABLE, _IN_USE, _ERROR = 0, 1, 2
_STATES = {_AVAILABLE: "Available", _IN_USE: "Exported", _ERROR: "Error"}
_SPEEDS = {Speed.LOW: 0, Speed.FULL: 1, Speed.HIGH: 2, Speed.WIRELESS: 2, Speed.SUPER: 3, Speed.SUPER_PLUS: 3}
_SPEED_NAMES = ("Low", "Full", "High", "Super")
#: By bmAttributes. Ref: USB 2.0, table 9-13
_TYPES = ("Control", "Isochronous", "Bulk", "Interrupt")
#: DEBUG, INFO, WARN, ERROR
_LEVELS = ((ERROR, 3), (WARNING, 2), (INFO, 1))
#: Events in an answer, and in a message; seconds for which a message is good for all who get it.
_LOGS, _NEWEST, _AGE = 50, 10, 0.25


class SeedView:
    """The devices of a server by number, which a busid keeps, whatever is plugged in or out. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._message = ""
        self._made = float("-inf")

    def devices(self, side: WebSide) -> dict[int, Standing]:
        """What is plugged in but hubs."""
        found = [standing for standing in side.server.operations.devices if standing.state != HUB]
        with self._lock:
            numbers = [self._numbers.setdefault(one.plugged.info.busid, len(self._numbers)) for one in found]
        return dict(sorted(zip(numbers, found, strict=True)))

    def device(self, side: WebSide, number: int) -> Standing:
        """Raises DeviceNotFound."""
        found = self.devices(side).get(number)
        if found is None:
            raise DeviceNotFound("device not found")
        return found

    def message(self, side: WebSide) -> str:
        """What is sent twice a second, made once for all."""
        with self._lock:
            if time.monotonic() - self._made < _AGE:
                return self._message
        text = json.dumps(_stats(side, self), separators=(",", ":"))
        with self._lock:
            self._message, self._made = text, time.monotonic()
        return text


def listed(number: int, found: Standing) -> dict[str, object]:
    """As in `/api/devices`."""
    info = found.plugged.info
    return {
        "index": number,
        "path": info.busid,
        "vid": info.idVendor,
        "pid": info.idProduct,
        "speed": _SPEEDS.get(info.speed, 0),
        "state": _state(found),
        "client_ip": _packed(_client(found)),
        "class": info.bDeviceClass,
        "subclass": info.bDeviceSubClass,
        "protocol": info.bDeviceProtocol,
    }


def detail(side: WebSide, number: int, found: Standing) -> dict[str, object]:
    """As in `/api/devices/detail`."""
    plugged, info, totals = found.plugged, found.plugged.info, _totals(side, found)
    configuration = _configuration(plugged)
    interfaces = _interfaces(plugged, configuration)
    return {
        **listed(number, found),
        "bcd_device": info.bcdDevice,
        "speed": _SPEED_NAMES[_SPEEDS.get(info.speed, 0)],
        "state": _STATES[_state(found)],
        "client_ip": _client(found),
        "manufacturer": plugged.manufacturer,
        "product": plugged.product,
        "serial": plugged.serial,
        "num_configurations": info.bNumConfigurations,
        "num_interfaces": len({interface["number"] for interface in interfaces}),
        "bytes_in": totals.bytes_in if totals else 0,
        "bytes_out": totals.bytes_out if totals else 0,
        "urbs_completed": totals.urbs - totals.errors if totals else 0,
        "urbs_failed": totals.errors if totals else 0,
        "interfaces": interfaces,
        "endpoints": _endpoints(configuration),
    }


def logs(side: WebSide, most: int = _LOGS) -> list[dict[str, object]]:
    """The latest events, the newest first. ts: microseconds since the server has started."""
    events = side.server.events
    found = events.after(max(events.last - most, 0), most)
    return [
        {"ts": max(round((event.time - side.started) * 1e6), 0), "level": _level(event), "msg": sentence(event)}
        for event in reversed(found)
    ]


def uptime(side: WebSide) -> int:
    """In seconds."""
    return max(int(time.time() - side.started), 0)


def _stats(side: WebSide, view: SeedView) -> dict[str, object]:
    rate = side.history.latest.rate
    return {
        "type": "stats",
        "free_heap": available(),
        "free_internal": 0,
        "uptime_sec": uptime(side),
        "bw_in": round(rate[0]),
        "bw_out": round(rate[1]),
        "devices": [_short(side, number, found) for number, found in view.devices(side).items()],
        "logs": logs(side, _NEWEST),
    }


def _short(side: WebSide, number: int, found: Standing) -> dict[str, object]:
    plugged, totals = found.plugged, _totals(side, found)
    info = plugged.info
    return {
        "idx": number,
        "path": info.busid,
        "vid": info.idVendor,
        "pid": info.idProduct,
        "speed": _SPEEDS.get(info.speed, 0),
        "state": _state(found),
        "client_ip": _packed(_client(found)),
        "mfr": plugged.manufacturer,
        "prod": plugged.product,
        "bi": totals.bytes_in if totals else 0,
        "bo": totals.bytes_out if totals else 0,
        "uok": totals.urbs - totals.errors if totals else 0,
        "ufl": totals.errors if totals else 0,
        "det": isinstance(plugged, Described),
        "icl": [interface.bInterfaceClass for interface in info.interfaces],
    }


def _state(found: Standing) -> int:
    return {IN_USE: _IN_USE, HELD: _ERROR}.get(found.state, _AVAILABLE)


def _client(found: Standing) -> str:
    """The address of who has it, empty if that is nobody, or of this machine."""
    return found.client.peer.host if found.client else ""


def _packed(address: str) -> int:
    """An IPv4 address, its first number in the lowest byte; 0 for all others."""
    with suppress(AddressValueError):
        return int.from_bytes(IPv4Address(address).packed, "little")
    return 0


def _totals(side: WebSide, found: Standing) -> Totals | None:
    figures = side.server.operations.count().find(found.plugged.info)
    return figures.totals if figures else None


def _level(event: Event) -> int:
    return next((level for severity, level in _LEVELS if event.severity <= severity), 0)


def _configuration(plugged: Plugged) -> ConfigurationDescriptor | None:
    """The active one, or else the first; None where the descriptors are not known."""
    found = []
    for raw in plugged.configurations if isinstance(plugged, Described) else ():
        with suppress(RemoteProtocolError):
            found.append(parse_configuration(raw))
    active = plugged.info.bConfigurationValue
    return next((one for one in found if one.bConfigurationValue == active), found[0] if found else None)


def _interfaces(plugged: Plugged, configuration: ConfigurationDescriptor | None) -> list[dict[str, int]]:
    """Each alternate setting is one."""
    if configuration is None:
        return [
            {"number": number, "class": one.bInterfaceClass, "subclass": one.bInterfaceSubClass,
             "protocol": one.bInterfaceProtocol, "num_endpoints": 0}
            for number, one in enumerate(plugged.info.interfaces)
        ]  # fmt: skip
    return [
        {"number": one.bInterfaceNumber, "class": one.bInterfaceClass, "subclass": one.bInterfaceSubClass,
         "protocol": one.bInterfaceProtocol, "num_endpoints": one.bNumEndpoints}
        for one in configuration.interfaces
    ]  # fmt: skip


def _endpoints(configuration: ConfigurationDescriptor | None) -> list[dict[str, object]]:
    return [
        {
            "address": f"0x{endpoint.bEndpointAddress:02X}",
            "direction": "IN" if endpoint.bEndpointAddress & DIR_IN else "OUT",
            "type": _TYPES[endpoint.bmAttributes & 3],
            "max_packet_size": endpoint.wMaxPacketSize,
            "interval": endpoint.bInterval,
        }
        for interface in (configuration.interfaces if configuration else ())
        for endpoint in interface.endpoints
    ]
