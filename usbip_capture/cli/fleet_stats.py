"""`usbip-capture fleet stats`: what the devices of all servers have done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from usbip_capture.cli import exits
from usbip_capture.cli.commanding import columns
from usbip_capture.cli.terminal import Waiting, print_lines
from usbip_capture.errors import UsbipError
from usbip_capture.fleet.figures import DeviceFigures, ServerFigures, ask_figures, total
from usbip_capture.fleet.members import Member
from usbip_capture.report.units import duration

_TITLE = ["server", "device", "VID:PID", "URBs", "bytes in", "bytes out", "errors", "unlinked", "median", "99 %",
          "product"]  # fmt: skip


def stats(members: Sequence[Member], *, as_json: bool) -> int:
    """Print them; the exit code: that of the first server that failed."""
    with Waiting(f"asking {len(members)} servers"):
        found = ask_figures(members)
    if as_json:
        print(json.dumps({"servers": [_json(server) for server in found], "total": _figures(_total(found))}, indent=2))
    else:
        print_lines(lines(found))
    failed = [server.error for server in found if server.error is not None]
    return exits.exit_code(failed[0]) if failed else exits.DONE


def lines(found: Sequence[ServerFigures]) -> list[str]:
    """A row for each device, one for each server, and one for all."""
    rows = [_TITLE]
    for server in found:
        rows += [_row(server.member.name, device) for device in server.devices.values()]
        if server.error is None:
            rows.append(_row(server.member.name, server.total, "all"))
    rows.append(_row("all", _total(found), "all"))
    failed = [f"{server.member.name}: {server.error}" for server in found if server.error is not None]
    return [*columns(rows), *failed]


def _total(found: Sequence[ServerFigures]) -> DeviceFigures:
    return total(server.total for server in found)


def _row(server: str, device: DeviceFigures, called: str = "") -> list[str]:
    counted = [device.urbs, device.bytes_in, device.bytes_out, device.errors, device.unlinked]
    times = [_time(device.quantile(part)) for part in (0.5, 0.99)]
    name = ", ".join(filter(None, [device.product, device.serial]))
    return [server, called or device.busid, device.vid_pid, *map(str, counted), *times, name]


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds * 1e9)


def _json(server: ServerFigures) -> dict[str, object]:
    return {
        "name": server.member.name,
        "address": server.member.address,
        "error": _sentence(server.error),
        "version": server.version,
        "clients": server.clients,
        "refused": server.refused,
        "memory": server.memory,
        "devices": [_figures(device) for device in server.devices.values()],
    }


def _sentence(error: UsbipError | None) -> str | None:
    return None if error is None else str(error)


def _figures(device: DeviceFigures) -> dict[str, object]:
    """Times in seconds."""
    made = asdict(device)
    made.pop("times")
    return {**made, "median": device.quantile(0.5), "quantile_99": device.quantile(0.99)}
