"""What happens at a server, as events: who connected, imported, was refused by which rule, was ended by whom.

Who emits never waits: an event goes into a ring, and into the bounded queue of each subscription.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import NamedTuple

from usbip_capture.net.listening import Peer
from usbip_capture.server.repeats import Repeats
from usbip_capture.syslog.severity import INFO

log = logging.getLogger(__name__)

#: Kinds. Of clients: who connected, got the list, a device, or nothing; released it, was disconnected by somebody else,
#: left without having had one.
CONNECTED, LISTED, IMPORTED, REFUSED = "connected", "listed", "imported", "refused"
RELEASED, ENDED, DISCONNECTED = "released", "ended", "disconnected"
#: Of devices, and of what decides about them.
PLUGGED, UNPLUGGED = "plugged", "unplugged"
EXPORTED, WITHDRAWN, RESET, POWER = "exported", "withdrawn", "reset", "power"
EXPORTS_CHANGED, ACCESS_CHANGED = "exports-changed", "access-changed"
SETTINGS_CHANGED = "settings-changed"
PAIRED, UNPAIRED, LEASED, LEASE_ENDED = "paired", "unpaired", "leased", "lease-ended"
#: Of captures that the server keeps.
CAPTURE_STARTED, CAPTURE_ENDED = "capture-started", "capture-ended"
#: Of the server itself. LOST: an output lacks events here, as many as `times`.
STARTED, STOPPED, LOST = "started", "stopped", "lost"
#: Of programs and addresses that are called when something else happens.
HOOK_DONE, HOOK_FAILED = "hook-done", "hook-failed"
#: Of the dashboard.
SIGNED_IN, SIGN_IN_REFUSED = "signed-in", "sign-in-refused"
TOKEN_ADDED, TOKEN_REMOVED = "token-added", "token-removed"

#: What a stranger could repeat as fast as the network goes: kept one by one only to a bound, see `Repeats`.
_REPEATABLE = frozenset((CONNECTED, LISTED, REFUSED, ENDED, DISCONNECTED, SIGNED_IN, SIGN_IN_REFUSED))
#: Events that are kept for those who ask later, and characters of each text in them.
RING = 10_000
_LONGEST = 256


class Event(NamedTuple):
    """time: seconds since 1970. severity: as syslog has it. number: its place in the sequence, from 1 on.

    device: VID:PID or VID:PID:SERIAL. rule: which decided. by: who caused it, such as `client`, `user` (a command on
    this machine), `server`. times: so many alike are meant, the last of them at `time`. Texts are as strangers sent
    them.
    """

    kind: str
    time: float
    severity: int = INFO
    peer: Peer | None = None
    busid: str = ""
    device: str = ""
    rule: str = ""
    text: str = ""
    by: str = ""
    times: int = 1
    number: int = 0


class Subscription:
    """The events from its beginning on, in order, for one who takes them on a thread of its own.

    lost: how many did not fit since it was last looked at by `take_lost`; total_lost: in all.
    """

    def __init__(
        self, size: int, on_close: Callable[[Subscription], None], kinds: Collection[str] | None = None
    ) -> None:
        self.total_lost = 0
        self._lost = 0
        self._size = size
        self._kinds = kinds
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._on_close = on_close

    def put(self, event: Event) -> None:
        """Keep it, if it is of these kinds and there is room."""
        if self._kinds is not None and event.kind not in self._kinds:
            return
        with self._changed:
            if self._closed:
                return
            if len(self._waiting) >= self._size:
                self._lost += 1
                self.total_lost += 1
            else:
                self._waiting.append(event)
                self._changed.notify_all()

    def take(self, most: int, timeout: float | None = None) -> list[Event]:
        """The next ones, waiting for the first of them; none after `timeout` seconds, or if it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def take_lost(self) -> int:
        """How many were lost since this was last asked."""
        with self._changed:
            lost, self._lost = self._lost, 0
            return lost

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    def close(self) -> None:
        """Take no more; those that wait can still be taken. May be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._on_close(self)

    def __len__(self) -> int:
        return len(self._waiting)


class Watch:
    """Calls `on_event` with each event at once, while events are locked, until `close`: it must not wait, nor emit."""

    def __init__(self, on_event: Callable[[Event], None], on_close: Callable[[Watch], None]) -> None:
        self._on_event = on_event
        self._on_close = on_close

    def put(self, event: Event) -> None:
        """It happens now."""
        try:
            self._on_event(event)
        except Exception:  # who emits goes on
            log.exception("an event is not seen by one who watches")

    def close(self) -> None:
        """Call it no more. May be called again."""
        self._on_close(self)


class Events:
    """Where events are emitted and taken. Threads may share it.

    Of one client, what it could repeat without end is kept one by one only so often; those that follow become one
    event with their count. ring: how many are kept for those who ask later.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, ring: int = RING) -> None:
        self._clock = clock
        self._lock = threading.Condition()
        self._ring: deque[Event] = deque(maxlen=ring)
        self._last = 0
        self._repeats = Repeats()
        self._subscriptions: tuple[Subscription | Watch, ...] = ()
        self._closed = False

    def emit(
        self,
        kind: str,
        severity: int = INFO,
        *,
        peer: Peer | None = None,
        busid: str = "",
        device: str = "",
        rule: str = "",
        text: str = "",
        by: str = "",
    ) -> None:
        """Report that this has happened now."""
        busid, device, rule, text, by = (part[:_LONGEST] for part in (busid, device, rule, text, by))
        event = Event(kind, self._clock(), severity, peer, busid, device, rule, text, by)
        with self._lock:
            for ready in self._repeats.ended(event.time):
                self._add(ready)
            repeatable = kind in _REPEATABLE and peer is not None and not (busid and kind == ENDED)
            for kept in self._repeats.kept(event) if repeatable else (event,):
                self._add(kept)

    def restore(self, events: Iterable[Event]) -> None:
        """Remember those that a server of this name has emitted before, the oldest first: numbers go on from theirs.

        Before anything is emitted; subscriptions do not get them.
        """
        kept = list(events)
        with self._lock:
            self._last = max([len(kept), *(event.number for event in kept)])
            first = self._last - len(kept) + 1  # without gaps: `after` counts on there being none
            self._ring.extend(event._replace(number=number) for number, event in enumerate(kept, first))

    def flush(self) -> None:
        """Add the counts of what is repeated no more."""
        with self._lock:
            for ready in self._repeats.ended(self._clock()):
                self._add(ready)

    def subscribe(self, size: int, kinds: Collection[str] | None = None) -> Subscription:
        """The events from now on, of these kinds only or of all; at most `size` wait to be taken."""
        made = Subscription(size, self._unsubscribe, kinds)
        with self._lock:
            self._subscriptions += (made,)
            if self._closed:
                made.close()
        return made

    def watch(self, on_event: Callable[[Event], None]) -> Watch:
        """Call it with the events from now on: see Watch."""
        made = Watch(on_event, self._unsubscribe)
        with self._lock:
            self._subscriptions += (made,)
        return made

    def after(self, number: int, most: int, timeout: float = 0.0) -> list[Event]:
        """Those that follow this number and are still there, the oldest first; waits for one, `timeout` seconds."""
        with self._lock:
            for ready in self._repeats.ended(self._clock()):
                self._add(ready)
            self._lock.wait_for(lambda: self._last > number or self._closed, timeout)
            first = self._last - len(self._ring) + 1
            start = max(number + 1 - first, 0)
            return list(islice(self._ring, start, start + most))

    @property
    def last(self) -> int:
        """The number of the latest event, 0 before the first."""
        return self._last

    @property
    def closed(self) -> bool:
        """Whether nothing more happens."""
        return self._closed

    def close(self) -> None:
        """Nothing more happens: who waits goes on. May be called again."""
        with self._lock:
            for ready in self._repeats.ended(None):
                self._add(ready)
            self._closed = True
            subscriptions = self._subscriptions
            self._lock.notify_all()
        for subscription in subscriptions:
            subscription.close()

    def _add(self, event: Event) -> None:
        """The lock is held."""
        if self._closed:
            return
        self._last += 1
        event = event._replace(number=self._last)
        self._ring.append(event)
        for subscription in self._subscriptions:
            subscription.put(event)
        self._lock.notify_all()

    def _unsubscribe(self, subscription: Subscription | Watch) -> None:
        with self._lock:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
