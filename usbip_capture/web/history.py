"""What went through the devices in the last ten minutes, twice a second; who wants it live is called each time."""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from usbip_capture.server.figures import Totals
from usbip_capture.serving.operations import Operations

log = logging.getLogger(__name__)

#: Seconds between two samples, and how many are kept.
INTERVAL = 0.5
LENGTH = 1200
#: Bytes a second to clients, and from them.
Rate: TypeAlias = "tuple[float, float]"
_NOTHING: Rate = (0.0, 0.0)


class Sample(NamedTuple):
    """time: seconds since 1970. rate: of all devices. urbs: a second. devices: of those that were used, by busid."""

    time: float
    rate: Rate = _NOTHING
    urbs: float = 0.0
    devices: Mapping[str, tuple[Rate, Totals]] = {}


class Series(NamedTuple):
    """times: seconds since 1970. rates: bytes a second, in and out."""

    times: list[float]
    rates: list[Rate]


class _Track:
    """The rates of one device, in a ring."""

    __slots__ = ("into", "out")

    def __init__(self) -> None:
        self.into, self.out = array("d", bytes(8 * LENGTH)), array("d", bytes(8 * LENGTH))


class History:
    """Samples what `operations` counts, from `start` to `close`. Threads may share it.

    clock: seconds, for rates; now: seconds since 1970, for times.
    """

    def __init__(
        self,
        operations: Operations,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._operations = operations
        self._figures = operations.count()
        self._clock, self._now = clock, now
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=LENGTH)
        self._taken = 0  # samples; the next one's place in the tracks is this, modulo LENGTH
        self._tracks: dict[str, _Track] = {"": _Track()}  # by busid; of all together: ""
        self._latest = Sample(now())
        self._at = clock()
        self._total = self._figures.totals
        self._devices: dict[str, tuple[object, Totals]] = {}
        self._listeners: tuple[Callable[[Sample], None], ...] = ()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usbip-figures", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError if no thread can be had."""
        self._thread.start()

    def close(self) -> None:
        """Sample no more. May be called again."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def listen(self, on_sample: Callable[[Sample], None]) -> None:
        """Have it called with each sample, on the thread that makes it; it must not wait."""
        with self._lock:
            self._listeners += (on_sample,)

    @property
    def latest(self) -> Sample:
        """The last one; of nothing before the first."""
        return self._latest

    def series(self, busid: str = "") -> Series:
        """Of all devices, or of one; the oldest first."""
        with self._lock:
            times, track = list(self._times), self._tracks.get(busid) or _Track()
            places = [place % LENGTH for place in range(self._taken - len(times), self._taken)]
            return Series(times, [(track.into[place], track.out[place]) for place in places])

    def sample(self) -> Sample:
        """Take one now."""
        at = self._clock()
        passed = max(at - self._at, 1e-3)
        total = self._figures.totals
        moved = total.minus(self._total)
        devices = self._device_rates(passed)
        made = Sample(self._now(), _rate(moved, passed), moved.urbs / passed, devices)
        self._at, self._total = at, total
        with self._lock:
            self._keep(made)
            listeners = self._listeners
        for listener in listeners:
            listener(made)
        return made

    def _device_rates(self, passed: float) -> dict[str, tuple[Rate, Totals]]:
        before, self._devices = self._devices, {}
        found: dict[str, tuple[Rate, Totals]] = {}
        for busid, figures in self._figures.devices.items():
            totals = figures.totals
            known = before.get(busid)
            old = known[1] if known is not None and known[0] is figures else Totals()
            self._devices[busid] = figures, totals
            found[busid] = _rate(totals.minus(old), passed), totals
        return found

    def _keep(self, made: Sample) -> None:
        """The lock is held."""
        for busid in made.devices:
            self._tracks.setdefault(busid, _Track())
        place = self._taken % LENGTH
        for busid, track in self._tracks.items():
            rate = made.rate if not busid else made.devices[busid][0] if busid in made.devices else _NOTHING
            track.into[place], track.out[place] = rate
        self._times.append(made.time)
        self._taken += 1
        self._latest = made

    def _run(self) -> None:
        due = time.monotonic() + INTERVAL
        is_failing = False
        while not self._closing.wait(max(due - time.monotonic(), 0.0)):
            try:
                self.sample()
                is_failing = False
            except Exception:
                if not is_failing:  # not twice a second
                    log.exception("the figures of the dashboard cannot be taken")
                is_failing = True
            due = max(due + INTERVAL, time.monotonic())  # late ones are not made up for


def _rate(moved: Totals, passed: float) -> Rate:
    if not moved.bytes_in and not moved.bytes_out:
        return _NOTHING
    return moved.bytes_in / passed, moved.bytes_out / passed
