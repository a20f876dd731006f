"""Endpoints and what they have done, in JSON's types."""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.server.figures import EndpointFigures
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.status import status_name
from usbip_capture.usb.urb import DIR_IN, TransferType


def endpoints_data(known: EndpointMap, figures: Sequence[EndpointFigures]) -> list[dict[str, object]]:
    """Those that the device has, and those that were used, by address. Times in seconds, null without any."""
    used = {endpoint.address: endpoint for endpoint in figures}
    addresses = {endpoint.address for endpoint in known} | used.keys()
    return [
        _endpoint(address, known, used.get(address))
        for address in sorted(addresses, key=lambda address: (address & 15, address))
    ]


def _endpoint(address: int, known: EndpointMap, used: EndpointFigures | None) -> dict[str, object]:
    described = known.find(address) or known.likely(address)
    kind = used.transfer_type if used else described.transfer_type if described else TransferType.CONTROL
    times = used.times if used and used.times.count else None
    return {
        "address": address,
        "direction": "in" if address & DIR_IN else "out",
        "type": kind.name.lower(),
        "max_packet_size": described.wMaxPacketSize & 0x7FF if described else None,
        "interval": described.bInterval if described else None,
        "urbs": used.urbs if used else 0,
        "bytes": used.bytes if used else 0,
        "errors": used.errors if used else 0,
        "cancelled": used.cancelled if used else 0,
        "last_status": _status(used.last_status) if used else None,
        "median": times.quantile(0.5) / 1e9 if times else None,
        "p99": times.quantile(0.99) / 1e9 if times else None,
        "histogram": _steps(times.powers()) if times else [],
    }


def _status(status: int) -> int | str:
    """0, or what it means."""
    return status_name(status) if status else 0


def _steps(powers: dict[int, int]) -> list[list[float]]:
    """[seconds, how many took up to that, and more than the step before]; without a gap."""
    return [[(1 << exponent) / 1e9, powers.get(exponent, 0)] for exponent in range(min(powers), max(powers) + 1)]
