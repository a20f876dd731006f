"""What the devices of a fleet have done, by the metrics of their servers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from usbip_capture.errors import UsbipError
from usbip_capture.fleet.answers import BY_DASHBOARD, MAX_DEVICES, MAX_NUMBER, MAX_TEXT
from usbip_capture.fleet.asking import Asking, Question
from usbip_capture.fleet.exposition import Sample, samples
from usbip_capture.fleet.members import Member
from usbip_capture.fleet.questions import allowed, connected
from usbip_capture.servers.dashboards import Dashboard

_BUCKET = "usbip_urb_duration_seconds_bucket"
#: Bounds of one histogram; our servers have 23.
_MAX_BOUNDS = 128


@dataclass(slots=True)
class DeviceFigures:
    """Since it was plugged in. times: bound in seconds -> URBs that were not slower."""

    busid: str = ""
    vid_pid: str = ""
    product: str = ""
    serial: str = ""
    urbs: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: int = 0
    unlinked: int = 0
    times: dict[float, int] = field(default_factory=dict)

    def add(self, other: DeviceFigures) -> None:
        """Count what another one has done, too."""
        self.urbs += other.urbs
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.errors += other.errors
        self.unlinked += other.unlinked
        for bound, reached in other.times.items():
            if bound in self.times or len(self.times) < _MAX_BOUNDS:
                self.times[bound] = self.times.get(bound, 0) + reached

    def quantile(self, fraction: float) -> float | None:
        """Seconds that this part of all does not exceed, by the bounds that there are; None if there is none.

        Ref: Prometheus, histogram_quantile(): linear within a bucket
        """
        bounds = sorted(self.times)
        number = max(self.times.values(), default=0)
        if not number:
            return None
        rank, below, before = fraction * number, 0.0, 0
        for bound in bounds:
            reached = self.times[bound]
            if reached >= rank and reached > before:
                return (
                    below if math.isinf(bound) else below + (bound - below) * max(rank - before, 0) / (reached - before)
                )
            below, before = (below if math.isinf(bound) else bound), max(reached, before)
        return below


@dataclass(slots=True)
class ServerFigures:
    """What a server has counted; or the `error`: why it does not report that."""

    member: Member
    error: UsbipError | None = None
    version: str = ""
    clients: int = 0
    refused: int = 0
    memory: int = 0
    devices: dict[str, DeviceFigures] = field(default_factory=dict)

    @property
    def total(self) -> DeviceFigures:
        """Of all its devices."""
        return total(self.devices.values())


def total(figures: Iterable[DeviceFigures]) -> DeviceFigures:
    """All of them together."""
    made = DeviceFigures()
    for one in figures:
        made.add(one)
    return made


def ask_figures(members: Sequence[Member]) -> list[ServerFigures]:
    """Of each, in their order; all are asked at once."""
    found = {at: ServerFigures(member, _why_not(member)) for at, member in enumerate(members)}
    asking: Asking[ServerFigures] = Asking()
    for at, member in enumerate(members):
        if member.dashboard is not None:
            ask: Callable[[], ServerFigures] = partial(_ask, member, member.dashboard)
            asking.add(Question(at, BY_DASHBOARD, ask, allowed(member.dashboard), str(member.dashboard)))
    while asking.open:
        came = asking.next()
        if came is not None:
            question, answer = came
            if isinstance(answer, UsbipError):
                answer = ServerFigures(members[question.number], answer)
            found[question.number] = answer
    return list(found.values())


def parse_figures(member: Member, text: str) -> ServerFigures:
    """Those in the text of `/metrics`."""
    made = ServerFigures(member)
    for sample in samples(text):
        _count(made, sample)
    return made


def _why_not(member: Member) -> UsbipError | None:
    if member.dashboard is not None:
        return None
    return member.problem or UsbipError(
        f"no dashboard of {member.name} is known: write it under [dashboards] in the configuration, and a token for it "
        "under [tokens]"
    )


def _ask(member: Member, dashboard: Dashboard) -> ServerFigures:
    with connected(dashboard) as connection:
        return parse_figures(member, connection.text("/metrics"))


def _count(made: ServerFigures, sample: Sample) -> None:
    value = int(min(max(sample.value, 0.0), MAX_NUMBER))
    if sample.name == "usbip_clients":
        made.clients = value
    elif sample.name == "usbip_refused_total":
        made.refused = value
    elif sample.name == "process_resident_memory_bytes":
        made.memory = value
    elif sample.name == "usbip_build_info":
        made.version = sample.labels.get("version", "")[:MAX_TEXT]
    elif "busid" in sample.labels:
        busid = sample.labels["busid"][:MAX_TEXT]
        if busid in made.devices or len(made.devices) < MAX_DEVICES:
            _count_device(made.devices.setdefault(busid, DeviceFigures(busid)), sample, value)


def _count_device(device: DeviceFigures, sample: Sample, value: int) -> None:
    labels = sample.labels
    if sample.name == "usbip_device_info":
        device.vid_pid = f"{labels.get('vid', '')}:{labels.get('pid', '')}"[:MAX_TEXT]
        device.product, device.serial = labels.get("product", "")[:MAX_TEXT], labels.get("serial", "")[:MAX_TEXT]
    elif sample.name == "usbip_urbs_total":
        device.urbs += value
    elif sample.name == "usbip_bytes_total":
        if labels.get("direction") == "in":
            device.bytes_in += value
        else:
            device.bytes_out += value
    elif sample.name == "usbip_urb_errors_total":
        device.errors += value
    elif sample.name == "usbip_urbs_unlinked_total":
        device.unlinked += value
    elif sample.name == _BUCKET:
        _count_bucket(device, labels.get("le", ""), value)


def _count_bucket(device: DeviceFigures, text: str, value: int) -> None:
    try:
        bound = float(text)
    except ValueError:
        return
    if bound > 0 and (bound in device.times or len(device.times) < _MAX_BOUNDS):
        device.times[bound] = device.times.get(bound, 0) + value
