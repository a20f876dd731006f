"""What the exported devices have done, counted: URBs, bytes, errors and completion times of each endpoint.

Only counted for who has asked for it: see `Server.figures`.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple, TypeAlias

from usbip_capture.usb.histogram import Histogram
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.status import UNLINKED
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

#: URBs of a device that are not counted yet, at most.
_BATCH = 1024
#: Address and type of the endpoint, status, not 0 if it has failed, bytes, nanoseconds.
_Answered: TypeAlias = "tuple[int, TransferType, int, int, int, int]"


class EndpointFigures:
    """One endpoint; control split by the direction of the data stage.

    urbs: all that were answered. bytes: moved by them. errors: failed, other than by being unlinked, also those with a
    bad isochronous packet; cancelled: unlinked. last_status: 0 or -errno. times: nanoseconds from submit to completion
    of those that were not unlinked; sum_ns: of these.
    """

    __slots__ = ("address", "bytes", "cancelled", "errors", "last_status", "sum_ns", "times", "transfer_type", "urbs")

    def __init__(self, address: int, transfer_type: TransferType) -> None:
        self.address = address
        self.transfer_type = transfer_type
        self.urbs = self.bytes = self.errors = self.cancelled = self.last_status = self.sum_ns = 0
        self.times = Histogram()

    def count(self, answered: list[_Answered]) -> None:
        """Add these, at least one."""
        self.urbs += len(answered)
        self.last_status = answered[-1][2]
        self.bytes += sum(length for _, _, _, _, length, _ in answered)
        times = [took for _, _, status, _, _, took in answered if status not in UNLINKED]
        self.cancelled += len(answered) - len(times)
        self.errors += sum(1 for _, _, status, failed, _, _ in answered if failed and status not in UNLINKED)
        if times:
            self.sum_ns += sum(times)
            self.times.add_all(times)

    def copy(self) -> EndpointFigures:
        """As they are now."""
        made = EndpointFigures(self.address, self.transfer_type)
        made.urbs, made.bytes, made.errors, made.cancelled = self.urbs, self.bytes, self.errors, self.cancelled
        made.last_status, made.sum_ns, made.times = self.last_status, self.sum_ns, self.times.copy()
        return made


class Totals(NamedTuple):
    """Sums over endpoints. bytes_in: from devices to clients."""

    urbs: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: int = 0

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(*map(int.__add__, self, other))

    def minus(self, other: Totals) -> Totals:
        """What has been added since `other`."""
        return Totals(*map(int.__sub__, self, other))


class DeviceFigures:
    """Of one device. Threads may share it.

    What comes is kept as it is until somebody looks, or there is much of it: those who wait for URBs wait for less.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._endpoints: dict[int, EndpointFigures] = {}
        self._waiting: deque[_Answered] = deque()
        self._keep = self._waiting.append

    def add(self, urb: Urb, completion: Completion, took_ns: int) -> None:
        """Count a URB that has been answered. took_ns: since it was submitted."""
        failed = completion.status or completion.error_count
        self._keep((urb.endpoint, urb.transfer_type, completion.status, failed, completion.actual_length, took_ns))
        if len(self._waiting) >= _BATCH:
            with self._lock:
                self._settle()

    def _settle(self) -> None:
        """Count what waits. The lock is held, so that nobody else takes from it."""
        by_endpoint: dict[int, list[_Answered]] = {}
        take = self._waiting.popleft
        for _ in range(len(self._waiting)):
            answered = take()
            by_endpoint.setdefault(answered[0], []).append(answered)
        for address, some in by_endpoint.items():
            found = self._endpoints.get(address)
            if found is None:
                found = self._endpoints[address] = EndpointFigures(address, some[0][1])
            found.count(some)

    @property
    def endpoints(self) -> list[EndpointFigures]:
        """Of each that was used, as they are now, by address: endpoint 0, then OUT before IN."""
        with self._lock:
            self._settle()
            found = [endpoint.copy() for endpoint in self._endpoints.values()]
        return sorted(found, key=lambda endpoint: (endpoint.address & 15, endpoint.address))

    @property
    def totals(self) -> Totals:
        """Of all endpoints."""
        urbs = bytes_in = bytes_out = errors = 0
        with self._lock:
            self._settle()
            for address, found in self._endpoints.items():
                urbs += found.urbs
                errors += found.errors
                if address & DIR_IN:
                    bytes_in += found.bytes
                else:
                    bytes_out += found.bytes
        return Totals(urbs, bytes_in, bytes_out, errors)


class Figures:
    """Of all devices, each from when it was plugged in. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: dict[str, tuple[object, DeviceFigures]] = {}  # by busid
        self._gone = Totals()

    def of(self, info: DeviceInfo) -> DeviceFigures:
        """Where those of a device are counted; one that was plugged in at its port before is not counted any more."""
        identity = _identity(info)
        with self._lock:
            known = self._devices.get(info.busid)
            if known is not None and known[0] == identity:
                return known[1]
            if known is not None:
                self._gone = self._gone.plus(known[1].totals)
            made = DeviceFigures()
            self._devices[info.busid] = identity, made
        return made

    def find(self, info: DeviceInfo) -> DeviceFigures | None:
        """Those of a device; None if it was not used yet."""
        known = self._devices.get(info.busid)
        return known[1] if known is not None and known[0] == _identity(info) else None

    @property
    def devices(self) -> dict[str, DeviceFigures]:
        """By busid: of what was used last at each port."""
        with self._lock:
            return {busid: figures for busid, (_, figures) in self._devices.items()}

    @property
    def totals(self) -> Totals:
        """Of all devices, also of those that are gone: never less than before."""
        with self._lock:
            found = self._gone
            for _, figures in self._devices.values():
                found = found.plus(figures.totals)
        return found


def _identity(info: DeviceInfo) -> object:
    """What differs between devices that are plugged in at a port one after the other."""
    return info.busnum, info.devnum, info.vid_pid
