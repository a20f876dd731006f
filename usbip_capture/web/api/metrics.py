"""What Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from starlette.responses import Response
from starlette.routing import BaseRoute

import usbip_capture
from usbip_capture.server.figures import EndpointFigures
from usbip_capture.serving.operations import HUB, IN_USE, Standing
from usbip_capture.system.memory import resident
from usbip_capture.usb.urb import DIR_IN
from usbip_capture.web.prometheus import CONTENT_TYPE, COUNTER, GAUGE, HISTOGRAM, Exposition
from usbip_capture.web.roles import LOOK
from usbip_capture.web.routing import Call, api
from usbip_capture.web.side import WebSide

#: Bounds of the histogram, as exponents: 2**14 ns is 16 us, 2**35 ns 34 s. Of every endpoint, so that they add up.
_FIRST, _LAST = 14, 35
#: Labels, and what they are of.
_Endpoints: TypeAlias = list[tuple[dict[str, str], EndpointFigures]]


def metrics(call: Call) -> Response:
    """All of them."""
    made = Exposition()
    _server(made, call.side)
    standings = [found for found in call.side.server.operations.devices if found.state != HUB]
    _devices(made, standings)
    _endpoints(made, list(_used(call.side, standings)))
    _captures(made, call.side)
    return Response(str(made), media_type=CONTENT_TYPE)


def _server(made: Exposition, side: WebSide) -> None:
    operations = side.server.operations
    for name, kind, meaning, value in (
        ("process_start_time_seconds", GAUGE, "When the server was started, in seconds since 1970.", side.started),
        ("process_resident_memory_bytes", GAUGE, "Memory that the server has.", resident()),
        ("usbip_clients", GAUGE, "Clients that are connected.", len(operations.clients)),
        ("usbip_refused_total", COUNTER, "Requests of clients that were refused.", operations.refused),
        ("usbip_events_total", COUNTER, "Events that were reported.", side.server.events.last),
        ("usbip_captures", GAUGE, "Captures that run.", len(side.captures())),
        ("usbip_streams", GAUGE, "Viewers of captures that are streamed.", side.streams.taken),
        ("usbip_stream_dropped_total", COUNTER, "Packets that these lack, as they read slowly.", side.shared.dropped),
    ):
        made.family(name, kind, meaning)
        made.sample(value)
    made.family("usbip_build_info", GAUGE, "The version of the server; its value is always 1.")
    made.sample(1, {"version": usbip_capture.__version__})


def _devices(made: Exposition, standings: list[Standing]) -> None:
    made.family("usbip_device_info", GAUGE, "A device that is plugged in; its value is always 1.")
    for found in standings:
        info, plugged = found.plugged.info, found.plugged
        labels = {"vid": f"{info.idVendor:04x}", "pid": f"{info.idProduct:04x}"}
        made.sample(1, {"busid": info.busid, **labels, "product": plugged.product, "serial": plugged.serial})
    made.family("usbip_device_exported", GAUGE, "Whether a device is exported.")
    for found in standings:
        made.sample(int(found.exported is not None), {"busid": found.plugged.info.busid})
    made.family("usbip_device_in_use", GAUGE, "Whether a client has a device.")
    for found in standings:
        made.sample(int(found.state == IN_USE), {"busid": found.plugged.info.busid})


def _captures(made: Exposition, side: WebSide) -> None:
    running = side.server.captures.running if side.server.captures is not None else []
    for name, meaning, attribute in (
        ("usbip_capture_packets_total", "Packets in a capture that runs.", "packets"),
        ("usbip_capture_bytes_total", "Bytes of a capture that runs.", "bytes"),
        ("usbip_capture_dropped_total", "Packets that a capture that runs lacks.", "dropped"),
    ):
        made.family(name, COUNTER, meaning)
        for facts in running:
            made.sample(getattr(facts, attribute), {"capture": facts.id})


def _used(side: WebSide, standings: list[Standing]) -> Iterator[tuple[dict[str, str], EndpointFigures]]:
    figures = side.server.operations.count()
    for found in standings:
        known = figures.find(found.plugged.info)
        for endpoint in known.endpoints if known else ():
            yield _labels(found.plugged.info.busid, endpoint), endpoint


def _labels(busid: str, endpoint: EndpointFigures) -> dict[str, str]:
    return {
        "busid": busid,
        "endpoint": f"0x{endpoint.address:02x}",
        "direction": "in" if endpoint.address & DIR_IN else "out",
        "type": endpoint.transfer_type.name.lower(),
    }


def _endpoints(made: Exposition, used: _Endpoints) -> None:
    for name, meaning, attribute in (
        ("usbip_urbs_total", "URBs that were answered.", "urbs"),
        ("usbip_bytes_total", "Bytes that were moved.", "bytes"),
        ("usbip_urb_errors_total", "URBs that have failed, other than by being unlinked.", "errors"),
        ("usbip_urbs_unlinked_total", "URBs that were unlinked.", "cancelled"),
    ):
        made.family(name, COUNTER, meaning)
        for labels, endpoint in used:
            made.sample(getattr(endpoint, attribute), labels)
    made.family(
        "usbip_urb_duration_seconds", HISTOGRAM, "Time from submit to completion of URBs, without unlinked ones."
    )
    for labels, endpoint in used:
        made.histogram(_counts(endpoint.times.powers()), endpoint.times.count, endpoint.sum_ns / 1e9, labels)


def _counts(powers: Mapping[int, int]) -> dict[float, int]:
    """By bounds in seconds."""
    found = dict.fromkeys(range(_FIRST, _LAST + 1), 0)
    for exponent, number in powers.items():
        if exponent <= _LAST:
            found[max(exponent, _FIRST)] += number
    return {(1 << exponent) / 1e9: number for exponent, number in found.items()}


ROUTES: list[BaseRoute] = [api("GET", "/metrics", metrics, role=LOOK, prefix="")]
