"""What the relay keeps of devices, and captures that begin later and have it first.

It is shown by the thread of whoever begins the capture: forwarding waits for the last few URBs of it only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.capture.recent import FEW, RecentUrb, RecentUrbs, Replay, oldest_ns
from usbip_capture.capture.span import Span
from usbip_capture.relay.captures import DESCRIPTORS, RelayCapture, key_of
from usbip_capture.relay.observation import Observation
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.observed import Completed, Ended, Event, Imported, Submitted, Unanswered

#: Devices of which something is kept, as long as the others are not in use.
_MAX_KEPT = 64
#: How often what has happened meanwhile is shown before the relay has to wait for the rest.
_MAX_TURNS = 20
#: The part of a key that is the URB's seqnum.
_SEQNUM = (1 << 32) - 1

Wait: TypeAlias = "Callable[[Callable[[], None]], None]"


class Past:
    """One device, with what was kept of it. user: who has it now, latest: who had it last. info: as it was then."""

    def __init__(self, span: Span, user: Observation, info: DeviceInfo) -> None:
        self.recent = RecentUrbs(span)
        self.begins(user, info)

    def begins(self, user: Observation, info: DeviceInfo) -> None:
        """It has been imported."""
        self.user: Observation | None = user
        self.latest = user
        self.info = info
        self.keys = self.recent.new_keys()


class RelayHistory:
    """What was kept of each device, as `span` has it. For the relay's thread alone."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._pasts: dict[str, list[Past]] = {}
        self._of: dict[Observation, Past] = {}

    @property
    def pasts(self) -> list[Past]:
        """Of all devices."""
        return [past for pasts in self._pasts.values() for past in pasts]

    def event(self, observation: Observation, event: Event) -> None:
        """As that of a capture."""
        if type(event) is Submitted:
            past = self._of[observation]
            past.recent.submitted(past.keys + event.seqnum, event.urb, event.data, event.timestamp_ns)
        elif type(event) is Completed:
            past = self._of[observation]
            past.recent.completed(past.keys + event.seqnum, event.completion, event.timestamp_ns)
        elif isinstance(event, Unanswered):
            past = self._of[observation]
            past.recent.unanswered(past.keys + event.seqnum)
        elif isinstance(event, Imported):
            self._leave(observation)
            self._of[observation] = self._past(observation, event.info)
        elif isinstance(event, Ended):
            self._leave(observation)

    def _past(self, observation: Observation, info: DeviceInfo) -> Past:
        """That of a device: the one that it had before, unless somebody else still has it."""
        known = self._pasts.pop(key_of(info), [])
        self._forget()
        self._pasts[key_of(info)] = known  # the latest
        for past in known:
            if past.user is None:
                past.begins(observation, info)
                return past
        known.append(Past(self._span, observation, info))
        return known[-1]

    def _forget(self) -> None:
        """The oldest of those that nobody uses, where there are too many."""
        for key in list(self._pasts):
            if len(self._pasts) < _MAX_KEPT:
                break
            if all(past.user is None for past in self._pasts[key]):
                del self._pasts[key]

    def _leave(self, observation: Observation) -> None:
        past = self._of.pop(observation, None)
        if past is not None:
            past.user = None
            for key in list(past.recent.flying):
                past.recent.unanswered(key)


class _View:
    """One device, on its way into a capture."""

    def __init__(self, past: Past, capture: RelayCapture) -> None:
        self.past = past
        self.channel = capture.add(past.info)
        self.kept: list[RecentUrb] = []
        self.requests = past.latest.seen.requests
        self._capture = capture
        self._replay = Replay(self.channel, capture.writer.flush, "relay")
        self._described = False
        past.recent.held += 1

    def look(self) -> int:
        """See what came back since, and what is in flight; how much came back. On the relay's thread."""
        recent, before = self.past.recent, self._replay.position
        self.kept = [*recent.since(before), *recent.flying.values()]
        self._replay.position = recent.position
        return recent.position - before

    def show(self, *, may_wait: bool) -> None:
        """Show what was seen."""
        if not self._described:
            self._described = True
            self._replay.describe(self.requests, DESCRIPTORS, oldest_ns(self.kept))
        self._replay.show(self.kept, may_wait=may_wait)

    def end(self) -> None:
        """What comes from now on, the capture sees by itself. On the relay's thread."""
        self.show(may_wait=False)
        self._replay.end()
        if self.past.user is not None:
            flying, ids = self.past.recent.flying, self._replay.ids
            seqnums = {key & _SEQNUM: ids[urb.number] for key, urb in flying.items()}
            self._capture.adopt(self.past.user, self.channel, seqnums)


class LateCapture:
    """`capture`, which begins with what `history` has. wait: has something done on the relay's thread.

    catch_up: has all that was forwarded seen; begin: begins the capture. Both are called on that thread.
    """

    def __init__(self, capture: RelayCapture, history: RelayHistory, catch_up: Callable[[], None]) -> None:
        self._capture = capture
        self._history = history
        self._catch_up = catch_up
        self._views: dict[Past, _View] = {}
        self._done = False

    def run(self, wait: Wait, begin: Callable[[], None]) -> None:
        """On the thread of whoever begins the capture; it has begun when this returns."""

        def look() -> None:
            if not self._look():
                self._end()
                begin()
                self._done = True

        def end() -> None:
            self._look()
            self._end()
            begin()

        try:
            for _ in range(_MAX_TURNS):
                wait(look)
                if self._done:
                    return
                for view in self._views.values():
                    view.show(may_wait=True)
            wait(end)
        finally:
            wait(self._release)

    def _look(self) -> bool:
        """Whether there is more than the relay can wait for."""
        self._catch_up()
        for past in self._history.pasts:
            if past not in self._views and (past.user is not None or past.recent.since(0)):
                self._views[past] = _View(past, self._capture)
        return max((view.look() for view in self._views.values()), default=0) >= FEW

    def _end(self) -> None:
        for view in self._views.values():
            view.end()

    def _release(self) -> None:
        for view in self._views.values():
            view.past.recent.held -= 1
