"""What one client repeats as fast as the network goes: a few events one by one, then one event with their count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from usbip_capture.access.limits import key_of

if TYPE_CHECKING:
    from usbip_capture.server.events import Event

#: So many alike are kept one by one in so many seconds; and of so many clients and kinds that is known.
BURST, PERIOD, _MAX_KEYS = 10, 10.0, 256

# Kind, network and, of refusals, the reason.
_Key = tuple[str, str, str]


class _Seen(NamedTuple):
    """held: how many were not kept one by one; last: the latest of these."""

    since: float
    passed: int
    held: int = 0
    last: Event | None = None


class Repeats:
    """Decides what is kept. Not for several threads at once."""

    def __init__(self) -> None:
        self._seen: dict[_Key, _Seen] = {}  # the one that began first is the first

    def kept(self, event: Event) -> list[Event]:
        """What is to be kept now that this has happened: the event or nothing, after others that it leaves no room."""
        key = _key(event)
        seen = self._seen.get(key)
        if seen is None:
            evicted = [self._seen.pop(next(iter(self._seen)))] if len(self._seen) >= _MAX_KEYS else []
            self._seen[key] = _Seen(event.time, 1)
            return [*_counted(evicted), event]
        if seen.passed < BURST:
            self._seen[key] = seen._replace(passed=seen.passed + 1)
            return [event]
        self._seen[key] = seen._replace(held=seen.held + 1, last=event)
        return []

    def ended(self, now: float | None) -> list[Event]:
        """The counts of what has gone on for a period; of all with None."""
        found = []
        for key, seen in self._seen.items():
            if now is not None and 0 <= now - seen.since < PERIOD:
                break
            found.append(key)
        return list(_counted([self._seen.pop(key) for key in found]))


def _counted(seen: list[_Seen]) -> Iterator[Event]:
    for one in seen:
        if one.last is not None:
            yield one.last._replace(times=one.held)


def _key(event: Event) -> _Key:
    return (
        event.kind,
        key_of(event.peer.host) if event.peer is not None else "",
        event.text if event.kind == "refused" else "",
    )
