"""Statistics as plain data, for scripts. Pure."""

from __future__ import annotations

from usbip_capture.report.log import Log
from usbip_capture.report.measure import Measured
from usbip_capture.report.statistics import EndpointTotals, InterfaceTotals
from usbip_capture.report.text import endpoints_by_device
from usbip_capture.usb.urb import DIR_IN, TransferType


def as_data(measured: Measured) -> dict[str, object]:
    """All that the text has, and each log line and failure that was kept. Times in seconds, points since 1970."""
    statistics = measured.statistics
    return {
        "file": measured.name,
        "problem": None if measured.problem is None else str(measured.problem),
        "filtered": statistics.filtered,
        "interfaces": [_interface(totals) for totals in statistics.interfaces.values()],
        "log": _lines(statistics.log),
        "failures": _lines(statistics.failures),
    }


def _interface(totals: InterfaceTotals) -> dict[str, object]:
    interface = totals.interface
    devices = [
        {
            "device": device.name,
            "vid_pid": None if device.vid_pid is None else "{:04x}:{:04x}".format(*device.vid_pid),
            "bDeviceClass": device.device_class,
            "endpoints": [_endpoint(endpoint) for endpoint in endpoints],
        }
        for device, endpoints in endpoints_by_device(totals)
    ]
    return {
        "name": interface.name,
        "description": interface.description,
        "link_type": interface.link_type,
        "packets": totals.packets,
        "received": interface.received,
        "dropped": interface.dropped,
        "unread": totals.unread,
        "beyond": totals.beyond,
        "first": totals.first_ns / 1e9,
        "last": totals.last_ns / 1e9,
        "comments": list(interface.comments),
        "devices": devices,
    }


def _endpoint(endpoint: EndpointTotals) -> dict[str, object]:
    times, kind = endpoint.times, endpoint.transfer_type
    spread = {"min": times.minimum, "median": times.quantile(0.5), "p99": times.quantile(0.99), "max": times.maximum}
    return {
        "address": endpoint.address,
        "type": TransferType(kind).name.lower() if kind <= max(TransferType) else str(kind),
        "direction": "in" if endpoint.address & DIR_IN else "out",
        "bInterfaceClass": endpoint.device.interface_class(endpoint.address),
        "urbs": endpoint.urbs,
        "bytes": endpoint.bytes,
        "errors": endpoint.errors,
        "cancelled": endpoint.cancelled,
        "unfinished": endpoint.unfinished,
        "in_flight": endpoint.in_flight,
        "completion_times": {name: time_ns / 1e9 for name, time_ns in spread.items()} if times.count else None,
    }


def _lines(log: Log) -> list[dict[str, object]]:
    return [
        {"time": line.timestamp_ns / 1e9, "source": line.source, "severity": line.severity, "text": line.text}
        for line in log
    ]
