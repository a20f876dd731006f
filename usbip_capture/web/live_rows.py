"""URBs as rows of a page, while they pass: as many as can be looked at, the others are counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from usbip_capture.filters.language import Filter
from usbip_capture.filters.matcher import Matcher
from usbip_capture.sessions.session import DeviceSession, Watcher
from usbip_capture.sessions.session_capture import DeviceChoice
from usbip_capture.tap import Tap
from usbip_capture.usb.status import EINPROGRESS, status_name
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

#: Rows that wait to be taken, URBs whose completion decides about their submit, bytes of each that are shown.
MAX_WAITING, MAX_HELD, SHOWN = 1000, 4096, 32
_CONTROL = TransferType.CONTROL


class _Seen(NamedTuple):
    number: int
    time: float
    session: DeviceSession
    urb: Urb
    completion: Completion | None
    data: bytes


class LiveRows(Watcher["_RowTap"]):
    """Rows of the sessions of these devices that pass all of `filters`, which can be set at any moment.

    paused: nothing is taken note of. missed: how many rows found no room since that was last asked.
    """

    def __init__(self, choice: DeviceChoice, filters: Sequence[Filter]) -> None:
        self.paused = False
        self._choice = choice
        self._filters = tuple(filters)
        self._lock = threading.Lock()
        self._rows: deque[_Seen] = deque()
        self._number = self._missed = 0

    @property
    def filters(self) -> tuple[Filter, ...]:
        """What rows have to pass. Set it from any thread."""
        return self._filters

    @filters.setter
    def filters(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        with self._lock:
            self._rows.clear()

    def take(self, most: int) -> tuple[list[dict[str, object]], int]:
        """The next rows, in JSON's types, and how many were missed before them."""
        with self._lock:
            found = [self._rows.popleft() for _ in range(min(most, len(self._rows)))]
            missed, self._missed = self._missed, 0
        return [_row(seen) for seen in found], missed

    def add(self, session: DeviceSession, urb: Urb, completion: Completion | None, timestamp: float) -> None:
        """A row, if there is room."""
        with self._lock:
            self._number += 1
            if len(self._rows) >= MAX_WAITING:
                self._missed += 1
                return
            data = urb.data if completion is None else completion.data
            self._rows.append(_Seen(self._number, timestamp, session, urb, completion, bytes(data[:SHOWN])))

    # -- as sessions have it

    def tap(self, session: DeviceSession) -> _RowTap | None:
        return _RowTap(self, session) if self._choice.includes(session) else None

    def earlier(self, tap: _RowTap, requests: Sequence[tuple[Urb, Completion]]) -> None:
        for urb, completion in requests:  # classes of interfaces, for the filter
            tap.learn(urb, completion)

    def in_flight(self, tap: _RowTap, urb: Urb) -> int:
        return tap.passed(urb)

    def ended(self, session: DeviceSession, tap: _RowTap, loss: str) -> None:
        """Its rows show that."""


class _RowTap(Tap):
    """Of one session, with whose lock it is called."""

    def __init__(self, rows: LiveRows, session: DeviceSession) -> None:
        self._rows = rows
        self._session = session
        self._earlier: list[tuple[Urb, Completion]] = []
        self._last = 0
        self._held: dict[int, tuple[float, Urb]] = {}  # submits whose completion decides
        self._filters: tuple[Filter, ...] = ()
        self._matchers: list[Matcher] = []

    def learn(self, urb: Urb, completion: Completion) -> None:
        """What the filters have to know of the device."""
        self._earlier.append((urb, completion))

    def passed(self, urb: Urb) -> int:
        """A number for a URB that was submitted before."""
        self._last += 1
        return self._last

    def submitted(self, urb: Urb) -> int:
        number = self.passed(urb)
        if self._rows.paused:
            return number
        now = time.time()
        verdicts = [matcher.submitted(urb, False) for matcher in self._current()]
        if False in verdicts:
            return 0
        if None not in verdicts:
            self._rows.add(self._session, urb, None, now)
        elif len(self._held) < MAX_HELD:
            self._held[number] = now, urb
        return number

    def completed(self, urb_id: int, urb: Urb, completion: Completion) -> None:
        held = self._held.pop(urb_id, None)
        now = time.time()
        matchers = self._current()
        for matcher in matchers:
            matcher.learn(urb, completion)
        if not urb_id or self._rows.paused or not all(m.completed(urb, completion, False) for m in matchers):
            return
        if held is not None:
            self._rows.add(self._session, urb, None, held[0])
        self._rows.add(self._session, urb, completion, now)

    def unlink(self, urb_id: int, message: bytes) -> None:
        """What a URB comes to is seen when it is completed."""

    def _current(self) -> list[Matcher]:
        """Of the filters that are set now."""
        filters = self._rows.filters
        if filters is not self._filters:
            self._filters = filters
            self._matchers = [Matcher(each, self._session.info) for each in filters]
            self._held.clear()
            for urb, completion in self._earlier:
                for matcher in self._matchers:
                    matcher.learn(urb, completion)
        return self._matchers


def _row(seen: _Seen) -> dict[str, object]:
    urb, completion = seen.urb, seen.completion
    is_control = urb.transfer_type == _CONTROL
    if completion is None:
        status, length = -EINPROGRESS, urb.length
    else:
        status, length = completion.status, completion.actual_length
    return {
        "number": seen.number,
        "time": seen.time,
        "device": seen.session.info.busid,
        "client": seen.session.client,
        "endpoint": 0 if is_control else urb.endpoint,
        "direction": "in" if urb.endpoint & DIR_IN else "out",
        "type": urb.transfer_type.name.lower(),
        "event": "S" if completion is None else "C",
        "status": status,
        "status_name": status_name(status),
        "length": length,
        "data": seen.data.hex(),
        "setup": urb.setup.hex() if is_control else "",
    }
