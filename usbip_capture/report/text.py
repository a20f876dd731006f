"""Statistics as text: a table of endpoints for each device."""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.recordings.link_types import UPPER_PDU, USB_LINUX, USB_LINUX_MMAPPED, USBPCAP, is_usb, link_type_name
from usbip_capture.report.devices import SeenDevice
from usbip_capture.report.statistics import EndpointTotals, InterfaceTotals, Statistics, endpoint_name
from usbip_capture.report.units import count, duration
from usbip_capture.system.shown import one_line
from usbip_capture.usb.names import class_name
from usbip_capture.usb.urb import DIR_IN, TransferType

COLUMNS = ("endpoint", "URBs", "bytes", "errors", "min", "median", "p99", "max", "")
TIMES = COLUMNS[4:8]
TIMES_HEADING = "completion time"
#: Log lines that are printed of each interface.
MAX_LINES = 10
_BY_INTERFACE = (0x00, 0xEF)
_KINDS = {USB_LINUX: "usbmon", USB_LINUX_MMAPPED: "usbmon", USBPCAP: "USBPcap"}


def text_report(statistics: Statistics) -> list[str]:
    """The whole report but the plot, as lines without control characters."""
    lines = []
    for totals in statistics.interfaces.values():
        lines += _interface(statistics, totals)
    if statistics.filtered:
        lines.append(f"{count(statistics.filtered, 'URB')} left out by the filter")
    return [one_line(line) for line in lines]


def endpoint_row(endpoint: EndpointTotals) -> tuple[str, ...]:
    """The cells of COLUMNS."""
    times = endpoint.times
    spread = (times.minimum, times.quantile(0.5), times.quantile(0.99), times.maximum)
    interface_class = endpoint.device.interface_class(endpoint.address)
    known = f" ({class_name(interface_class)})" if interface_class is not None else ""
    return (
        endpoint_name(endpoint.transfer_type, endpoint.address) + known,
        *(str(number) for number in (endpoint.urbs, endpoint.bytes, endpoint.errors)),
        *(duration(time) if times.count else "-" for time in spread),
        ", ".join(_rest(endpoint)),
    )


def device_title(device: SeenDevice) -> str:
    """As `device 1-1.2, 045c:1234 (mass storage)`."""
    title = f"device {device.name}"
    if device.vid_pid is not None:
        title += f", {device.vid_pid[0]:04x}:{device.vid_pid[1]:04x}"
    if device.device_class not in (None, *_BY_INTERFACE):
        title += f" ({class_name(device.device_class or 0)})"
    return title


def interface_title(totals: InterfaceTotals) -> str:
    """As `usbip0: USB/IP pi 1-1.2 1209:0001 Thing`."""
    interface = totals.interface
    if not is_usb(interface.link_type) and interface.link_type != UPPER_PDU:
        return f"{interface.name or 'capture'}: {link_type_name(interface.link_type)}"
    return f"{interface.name or 'capture'}: {interface.description or _KINDS.get(interface.link_type, 'log lines')}"


def interface_counts(totals: InterfaceTotals) -> str:
    """As `14 packets, 0 dropped, 0.013 s`."""
    counts = [count(totals.packets, "packet")]
    if totals.interface.dropped is not None:
        counts.append(f"{totals.interface.dropped} dropped")
    if is_usb(totals.interface.link_type):
        if totals.unread:
            counts.append(f"{totals.unread} of them not about URBs, or cut short")
        if totals.beyond:
            counts.append(f"{count(totals.beyond, 'URB')} of too many endpoints")
    return ", ".join([*counts, f"{(totals.last_ns - totals.first_ns) / 1e9:.3f} s"])


def endpoints_by_device(totals: InterfaceTotals) -> list[tuple[SeenDevice, list[EndpointTotals]]]:
    """Devices in the order in which they were seen, their endpoints by number."""
    found: dict[SeenDevice, list[EndpointTotals]] = {}
    for endpoint in totals.endpoints.values():
        found.setdefault(endpoint.device, []).append(endpoint)
    return [(device, sorted(endpoints, key=_by_number)) for device, endpoints in found.items()]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need be, the first and the last to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        middle = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return lines


def _interface(statistics: Statistics, totals: InterfaceTotals) -> list[str]:
    lines = [interface_title(totals), f"  {interface_counts(totals)}"]
    for device, endpoints in endpoints_by_device(totals):
        lines.append(f"  {device_title(device)}")
        rows = table([COLUMNS, *(endpoint_row(e) for e in endpoints)])
        lines += [f"    {line}" for line in (" " * rows[0].index(TIMES[0]) + TIMES_HEADING, *rows)]
    if not is_usb(totals.interface.link_type):
        name = totals.interface.name or "capture"
        log = [line for line in statistics.log if line.source == name]
        start_ns = min((t.first_ns for t in statistics.interfaces.values() if t.first_ns), default=0)
        for line in log[:MAX_LINES]:
            lines.append(f"  {(line.timestamp_ns - start_ns) / 1e9:10.6f} s  {line.severity:9} {line.text}")
        if len(log) > MAX_LINES:
            lines.append(f"  and {len(log) - MAX_LINES} more lines, which --html shows")
    return lines + [f"  {comment}" for comment in totals.interface.comments]


def _rest(endpoint: EndpointTotals) -> list[str]:
    # Several reads that wait in line take as many times as long as one: that is not the device's fault.
    in_flight = endpoint.in_flight if endpoint.in_flight > 1 and endpoint.transfer_type != TransferType.CONTROL else 0
    parts = [(in_flight, "in flight"), (endpoint.cancelled, "cancelled"), (endpoint.unfinished, "unfinished")]
    return [f"{number} {what}" for number, what in parts if number]


def _by_number(endpoint: EndpointTotals) -> tuple[int, int, int]:
    return endpoint.address & 0x0F, -(endpoint.address & DIR_IN), endpoint.transfer_type
