"""What the relay understands of a connection: the device, its URBs, its descriptors. Forwarding never depends on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.relay.seen import SeenRequests
from usbip_capture.shown import one_line
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer, Urb
from usbip_capture.wire.observed import Completed, Event, Imported, Submitted, Unanswered
from usbip_capture.wire.observer import Observer

log = logging.getLogger(__name__)

#: Parts of what is at least so long are not copied for the events.
_OWN_COPY = 4096
#: URBs of one connection that are waited for: there are many connections.
MAX_PENDING = 4096

Emit: TypeAlias = "Callable[[Observation, list[Event]], None]"


class Observation:
    """One connection. number: counts from 1; peer: the client's address, for people.

    imported: the device, None before there is one. info, waiting: the device, and its URBs that are out, by seqnum, as
    far as events were handed on to the captures, a moment later.
    """

    def __init__(self, number: int, peer: str, emit: Emit) -> None:
        self.number = number
        self.peer = peer
        self.info: DeviceInfo | None = None
        self.seen = SeenRequests()
        self.waiting: dict[int, Urb] = {}
        self.urbs = 0
        self.imported: DeviceInfo | None = None
        self._observer: Observer | None = Observer(max_pending=MAX_PENDING)
        self._emit = emit

    @property
    def device(self) -> str:
        """For people; empty before there is one."""
        return one_line(str(self.info)) if self.info is not None else ""

    def saw(self, from_client: bool, data: Buffer, timestamp_ns: int) -> None:
        """These bytes were forwarded."""
        observer = self._observer
        if observer is None:
            return
        if len(data) >= _OWN_COPY:
            data = memoryview(data)
        try:
            events = observer.client(data, timestamp_ns) if from_client else observer.server(data, timestamp_ns)
            if events:
                if observer.info is not self.imported:
                    self._imports(observer.info)
                self._emit(self, events)
        except Exception:
            self._give_up()

    def ended(self, timestamp_ns: int) -> None:
        """The connection is over."""
        if self._observer is not None:
            try:
                self._emit(self, self._observer.closed(timestamp_ns))
            except Exception:
                self._give_up()

    def _imports(self, info: DeviceInfo | None) -> None:
        self.imported = info
        log.info("client %d, %s, has imported %s", self.number, self.peer, one_line(str(info)))

    def _give_up(self) -> None:
        log.exception("connection %d is forwarded, but no longer observed", self.number)
        self._observer = None

    def passes(self, event: Event) -> None:
        """Take note of an event, before the captures have it."""
        if type(event) is Submitted:
            self.waiting[event.seqnum] = event.urb
        elif type(event) is Completed:
            self.waiting.pop(event.seqnum, None)
            self.urbs += 1
            self.seen.saw(event.urb, event.completion)
        elif type(event) is Unanswered:
            self.waiting.pop(event.seqnum, None)
        elif type(event) is Imported:
            self.info = event.info
            self.seen = SeenRequests()
