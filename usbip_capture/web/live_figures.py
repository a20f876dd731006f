"""Figures as browsers get them, twice a second: encoded once for all of them, and none waits for another one.

A browser that does not take them as fast misses some, and learns how many.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from usbip_capture.server.events import (
    HOOK_DONE,
    HOOK_FAILED,
    LISTED,
    LOST,
    REFUSED,
    SIGN_IN_REFUSED,
    SIGNED_IN,
    Events,
)
from usbip_capture.system.memory import resident
from usbip_capture.web.history import INTERVAL, History, Sample

if TYPE_CHECKING:
    from usbip_capture.serving.operations import Operations, Standing

#: Kinds of event that change nothing which pages fetch; and how many events are looked at for each sample.
_UNSEEN = frozenset((LISTED, REFUSED, LOST, HOOK_DONE, HOOK_FAILED, SIGNED_IN, SIGN_IN_REFUSED))
_MOST = 200


class LiveFigures:
    """What is sent of each sample of `history`, while somebody listens.

    captures: returns the figures of those that run, by their ids. capture_changes: a number that rises with each that
    begins, ends or is deleted. events: what comes and goes between two samples is seen there.
    """

    def __init__(
        self,
        operations: Operations,
        history: History,
        captures: Callable[[], Mapping[str, object]] = dict,
        capture_changes: Callable[[], int] = int,
        events: Events | None = None,
    ) -> None:
        self._operations = operations
        self._history = history
        self._captures = captures
        self._capture_changes = capture_changes
        self._events = events
        self._last_event = events.last if events else 0
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._changed = 0
        self._seen: object = None
        history.listen(self._sampled)

    def join(self) -> Listener:
        """For a browser, on its event loop; `leave` ends it."""
        made = Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners.append(made)
        return made

    def leave(self, listener: Listener) -> None:
        """It gets no more. May be called again."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not listener]

    def history(self) -> str:
        """What comes first."""
        series = self._history.series()
        into, out = ([round(rate[which]) for rate in series.rates] for which in (0, 1))
        return _encoded({"type": "history", "interval": INTERVAL, "times": series.times, "in": into, "out": out})

    # -- on the thread that samples

    def _sampled(self, sample: Sample) -> None:
        with self._lock:
            listeners = list(self._listeners)
        if not listeners:
            return
        text = _encoded(self._message(sample))[:-1]
        by_loop: dict[asyncio.AbstractEventLoop, list[Listener]] = {}
        for listener in listeners:
            by_loop.setdefault(listener.loop, []).append(listener)
        for loop, some in by_loop.items():
            try:
                loop.call_soon_threadsafe(_put, some, text)
            except RuntimeError:  # the loop is closed: the service has ended
                for listener in some:
                    self.leave(listener)

    def _message(self, sample: Sample) -> dict[str, object]:
        standings, clients = self._operations.devices, self._operations.clients
        captures = self._captures()
        seen = (
            [(found.plugged.info, found.state, found.exported, found.why) for found in standings],
            [(client.number, client.busid) for client in clients],
            self._capture_changes(),
        )
        if self._has_happened() or seen != self._seen:
            self._seen = seen
            self._changed += 1
        return {
            "type": "figures",
            "time": sample.time,
            "in": round(sample.rate[0]),
            "out": round(sample.rate[1]),
            "urbs": round(sample.urbs),
            "clients": len(clients),
            "memory": resident(),
            "devices": {found.plugged.info.busid: _device(found, sample) for found in standings},
            "captures": captures,
            "changed": self._changed,
        }

    def _has_happened(self) -> bool:
        """Whether there was an event since this was last asked after which pages are to look again."""
        if self._events is None:
            return False
        found = self._events.after(self._last_event, _MOST)
        if len(found) == _MOST:
            self._last_event = self._events.last
        elif found:
            self._last_event = found[-1].number
        return len(found) == _MOST or any(event.kind not in _UNSEEN for event in found)


class Listener:
    """The frames for one browser, of which the newest waits for it. Used on its event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.skipped = 0
        self._waiting = ""
        self._came = asyncio.Event()

    def put(self, text: str) -> None:
        """A frame without its end. One that was not taken yet is skipped."""
        self.skipped += bool(self._waiting)
        self._waiting = text
        self._came.set()

    async def take(self) -> str:
        """The next frame; waits for it."""
        await self._came.wait()
        self._came.clear()
        text, self._waiting = self._waiting, ""
        return f'{text},"skipped":{self.skipped}}}'


def _put(listeners: list[Listener], text: str) -> None:
    for listener in listeners:
        listener.put(text)


def _device(found: Standing, sample: Sample) -> dict[str, object]:
    busid = found.plugged.info.busid
    rate, totals = sample.devices.get(busid, ((0.0, 0.0), None))
    return {
        "in": round(rate[0]),
        "out": round(rate[1]),
        "urbs": totals.urbs if totals else 0,
        "errors": totals.errors if totals else 0,
        "state": found.state,
        "client": str(found.client.peer) if found.client else "",
    }


def _encoded(message: Mapping[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))
