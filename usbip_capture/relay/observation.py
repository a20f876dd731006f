"""What the relay understands of a connection: the device, its URBs, its descriptors. Forwarding never depends on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.relay.seen import SeenRequests
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer, Urb
from usbip_capture.wire.observed import Completed, Event, Imported, Submitted
from usbip_capture.wire.observer import Observer

log = logging.getLogger(__name__)

#: Parts of what is at least so long are not copied for the events.
_OWN_COPY = 4096

Emit: TypeAlias = "Callable[[Observation, list[Event]], None]"


class Observation:
    """One connection. number: counts from 1; peer: the client's address, for people.

    info: the device, None before there is one. waiting: its URBs that are out, by seqnum; both as far as events were
    handed on to the captures.
    """

    def __init__(self, number: int, peer: str, emit: Emit) -> None:
        self.number = number
        self.peer = peer
        self.info: DeviceInfo | None = None
        self.seen = SeenRequests()
        self.waiting: dict[int, Urb] = {}
        self.urbs = 0
        self._observer: Observer | None = Observer()
        self._emit = emit

    @property
    def device(self) -> str:
        """For people; empty before there is one."""
        return str(self.info) if self.info is not None else ""

    def saw(self, from_client: bool, data: Buffer, timestamp_ns: int) -> None:
        """These bytes were forwarded."""
        observer = self._observer
        if observer is None:
            return
        if len(data) >= _OWN_COPY:
            data = memoryview(data)
        try:
            events = observer.client(data, timestamp_ns) if from_client else observer.server(data, timestamp_ns)
        except Exception:
            log.exception("connection %d is forwarded, but no longer observed", self.number)
            self._observer = None
            return
        if events:
            self._emit(self, events)

    def ended(self, timestamp_ns: int) -> None:
        """The connection is over."""
        if self._observer is not None:
            self._emit(self, self._observer.closed(timestamp_ns))

    def passes(self, event: Event) -> None:
        """Take note of an event, before the captures have it."""
        if type(event) is Submitted:
            self.waiting[event.seqnum] = event.urb
        elif type(event) is Completed:
            self.waiting.pop(event.seqnum, None)
            self.urbs += 1
            self.seen.saw(event.urb, event.completion)
        elif type(event) is Imported:
            self.info = event.info
            self.seen = SeenRequests()
