"""A fleet as text, as a tree and for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from usbip_capture.cli.clients import duration
from usbip_capture.cli.commanding import columns
from usbip_capture.describe.tree import ports_of
from usbip_capture.fleet.answers import BY_DASHBOARD, FleetAnswer, FleetDevice, Totals
from usbip_capture.fleet.memory import Missing, Remembered, RememberedServer
from usbip_capture.report.units import count, rate
from usbip_capture.system.local_time import local_time

_INDENT = "  "


@dataclass(slots=True, frozen=True)
class Picture:
    """What a fleet answered at `now`, and what is missing. before: what each server had, by `Member.key`."""

    answers: Sequence[FleetAnswer]
    missing: Missing
    before: dict[str, RememberedServer]
    now: int

    def lost(self, answer: FleetAnswer) -> list[Remembered]:
        """Devices that are missing at a server."""
        return self.missing.by_key.get(answer.member.key, [])

    @property
    def certain(self) -> bool:
        """Whether something is missing that is not only in use."""
        by_dashboard = [answer for answer in self.answers if answer.way == BY_DASHBOARD]
        return bool(self.missing.servers) or any(self.lost(answer) for answer in by_dashboard)

    def worst_first(self) -> Picture:
        """Servers that have not answered, then those where something is missing or fails, then others."""

        def order(answer: FleetAnswer) -> tuple[bool, bool]:
            return answer.error is None, not (self.lost(answer) or answer.problem or answer.errors)

        return replace(self, answers=sorted(self.answers, key=order))


def lines(picture: Picture, *, tree: bool = False) -> list[str]:
    """Each server with its devices below, then all together."""
    shown: list[str] = []
    rows = _rows(picture) if not tree else iter(())
    for answer in picture.answers:
        shown.append(_heading(answer, picture))
        if answer.problem is not None:
            shown.append(f"{_INDENT}its dashboard: {answer.problem}")
        if tree:
            shown += _tree(answer, picture)
        else:
            shown += [next(rows) for _ in (*answer.devices, *picture.lost(answer))]
    shown += [_not_announced(server, picture.now) for server in picture.missing.servers]
    return [*shown, summary(picture)]


def summary(picture: Picture) -> str:
    """All together, in a line."""
    totals = Totals.of(picture.answers)
    servers = count(totals.servers, "server")
    answer = f"{servers}, {totals.servers - totals.answered} of them not there" if _some_failed(totals) else servers
    parts = [answer, count(totals.devices, "device"), f"{totals.in_use} in use", count(totals.clients, "client")]
    parts += [f"{rate(totals.rate_in)} in", f"{rate(totals.rate_out)} out", count(totals.errors, "error")]
    return ", ".join([*parts, *([f"{picture.missing.count} missing"] if picture.missing.count else [])])


def as_json(picture: Picture) -> dict[str, object]:
    """For scripts. Rates are in bytes a second, times in seconds since 1970."""
    return {
        "time": picture.now,
        "servers": [_server_json(answer, picture) for answer in picture.answers],
        "missing_servers": [
            {"name": server.name, "seen": server.seen, "devices": len(server.devices)}
            for server in picture.missing.servers
        ],
        "totals": {**asdict(Totals.of(picture.answers)), "missing": picture.missing.count},
    }


def _server_json(answer: FleetAnswer, picture: Picture) -> dict[str, object]:
    member = answer.member
    before = picture.before.get(member.key)
    return {
        "name": member.name,
        "address": member.address,
        "announced": member.announced,
        "way": answer.way,
        "error": None if answer.error is None else str(answer.error),
        "problem": None if answer.problem is None else str(answer.problem),
        "version": answer.version,
        "uptime": answer.uptime,
        "clients": answer.clients,
        "rate_in": answer.rate_in,
        "rate_out": answer.rate_out,
        "errors": answer.errors,
        "devices": [asdict(device) for device in answer.devices],
        "missing": [asdict(device) for device in picture.lost(answer)],
        "before": None if before is None else {"seen": before.seen, "devices": len(before.devices)},
    }


def _some_failed(totals: Totals) -> bool:
    return totals.answered < totals.servers


def _heading(answer: FleetAnswer, picture: Picture) -> str:
    member = answer.member
    title = member.name if member.name == member.address else f"{member.name} ({member.address})"
    if answer.error is not None:
        before = picture.before.get(member.key)
        had = "" if before is None else f"; at {local_time(before.seen, picture.now)} it had "
        return f"{title}: {answer.error}{had}{count(len(before.devices), 'device') if before is not None else ''}"
    if answer.way != BY_DASHBOARD:
        return f"{title}: USB/IP, {count(len(answer.devices), 'device')}"
    passing = f"{rate(answer.rate_in)} in, {rate(answer.rate_out)} out"
    clients = count(answer.clients or 0, "client")
    errors = f", {count(answer.errors, 'error')}" if answer.errors else ""
    return f"{title}: usbip-capture {answer.version}, up {duration(answer.uptime)}, {clients}, {passing}{errors}"


def _not_announced(server: RememberedServer, now: int) -> str:
    devices = count(len(server.devices), "device")
    return f"{server.name}: missing: it does not announce itself; at {local_time(server.seen, now)} it had {devices}"


def _rows(picture: Picture) -> Iterator[str]:
    """Of all devices and all that are missing, server by server, with the same columns."""
    cells = [
        row
        for answer in picture.answers
        for row in (
            *(_cells(device) for device in answer.devices),
            *(_missing_cells(device, answer, picture.now) for device in picture.lost(answer)),
        )
    ]
    return iter([_INDENT + line for line in columns(cells)] if cells else [])


def _cells(device: FleetDevice) -> list[str]:
    passing = [f"{rate(device.rate_in)} in", f"{rate(device.rate_out)} out"] if device.client else ["", ""]
    errors = count(device.errors, "error") if device.errors else ""
    return [device.busid, device.vid_pid, device.state, device.client, *passing, errors, _name(device)]


def _missing_cells(device: Remembered, answer: FleetAnswer, now: int) -> list[str]:
    state = f"{_missing(answer)}, last there {local_time(device.seen, now)}"
    return [device.busid, device.vid_pid, state, "", "", "", "", _name(device)]


def _missing(answer: FleetAnswer) -> str:
    """A list of USB/IP leaves out devices in use, with most servers."""
    return "missing" if answer.way == BY_DASHBOARD else "missing or in use"


def _name(device: FleetDevice | Remembered) -> str:
    return ", ".join(filter(None, [device.product, device.serial]))


def _tree(answer: FleetAnswer, picture: Picture) -> Iterator[str]:
    """Buses, hubs and devices by their ports; busids that are not paths come last."""
    shown: list[tuple[FleetDevice | Remembered, str]] = []
    found: dict[tuple[int, ...], str] = {}
    others = []
    for device in answer.devices:
        state = f"{device.state}, {device.client}" if device.client else device.state
        shown.append((device, state))
    for lost in picture.lost(answer):
        shown.append((lost, f"{_missing(answer)}, last there {local_time(lost.seen, picture.now)}"))
    for one, state in shown:
        line = " ".join(filter(None, [one.busid, one.vid_pid, _name(one), f"[{state}]"]))
        ports = tuple(ports_of(one.busid) or ())
        if not ports or ports in found:
            others.append(f"{_INDENT}{line}")
        else:
            found[ports] = line
    for path in list(found):
        for depth in range(1, len(path)):
            found.setdefault(path[:depth], f"Bus {path[0]:03d}" if depth == 1 else f"port {path[depth - 1]} (hub)")
    for path in sorted(found):
        yield _INDENT * len(path) + ("" if len(path) == 1 else "|__ ") + found[path]
    yield from others
