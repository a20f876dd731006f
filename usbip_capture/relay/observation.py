"""What the relay understands of a connection: the device, its URBs, its descriptors. Forwarding never depends on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.capture.seen import SeenRequests
from usbip_capture.system.compiling import mypyc_attr
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.urb import Buffer, Urb
from usbip_capture.wire.observed import Completed, Event, Imported, Submitted, Unanswered
from usbip_capture.wire.observer import Observer

log = logging.getLogger(__name__)

#: Parts of what is at least so long are not copied for the events.
_OWN_COPY = 4096
#: URBs of one connection that are waited for: there are many connections.
MAX_PENDING = 2048
#: Bytes of incomplete messages, of all connections together.
MAX_INCOMPLETE = 128 << 20
#: Bytes to observe at once, before it is known how long that takes.
FIRST_PIECE = 8 << 10

Emit: TypeAlias = "Callable[[Observation, list[Event]], None]"

#: Called when the connection has imported a device, or with None when it cannot be observed whether it does.
Decide: TypeAlias = "Callable[[Observation, DeviceInfo | None], None]"


class Share:
    """Bytes of incomplete messages that all connections together may hold in memory."""

    def __init__(self, limit: int = MAX_INCOMPLETE) -> None:
        self._limit = limit
        self._held: dict[Observation, int] = {}
        self._total = 0

    def holds(self, observation: Observation, size: int, timestamp_ns: int) -> None:
        """So much is held of this connection now. Where it is too much, whoever holds most is observed no longer."""
        self._total += size - self._held.pop(observation, 0)
        if size:
            self._held[observation] = size
        if self._total > self._limit:
            most = max(self._held, key=self._held.__getitem__)
            self._total -= self._held.pop(most)
            most.give_up(timestamp_ns)


@mypyc_attr(allow_interpreted_subclasses=True)
class Observation:
    """One connection. number: counts from 1; peer: the client's address, for people.

    imported: the device, None before there is one. info, waiting: the device, and its URBs that are out, by seqnum, as
    far as events were handed on to the captures, a moment later. piece: how many bytes to observe at once.
    forwarded: bytes from the client and to it, when it is gone.
    """

    def __init__(
        self, number: int, peer: str, emit: Emit, share: Share | None = None, decide: Decide = lambda one, info: None
    ) -> None:
        self.number = number
        self.peer = peer
        self.info: DeviceInfo | None = None
        self.seen = SeenRequests()
        self.waiting: dict[int, Urb] = {}
        self.urbs = 0
        self.piece = FIRST_PIECE
        self.forwarded = (0, 0)
        self.imported: DeviceInfo | None = None
        self._observer: Observer | None = Observer(max_pending=MAX_PENDING)
        self._emit = emit
        self._share = share or Share()
        self._holds = False
        self._decide = decide

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
                if not self._holds:
                    return
            self._holds = bool(held := observer.held)
            self._share.holds(self, held, timestamp_ns)
        except Exception:  # noqa: BLE001  forwarding goes on
            self._fail()

    def ended(self, timestamp_ns: int) -> None:
        """The connection is over."""
        if self._observer is not None:
            try:
                self._emit(self, self._observer.closed(timestamp_ns))
            except Exception:  # noqa: BLE001  forwarding goes on
                self._fail()
        self._share.holds(self, 0, timestamp_ns)
        log.info("client %d, %s, is gone: %d bytes from it, %d to it", self.number, self.peer, *self.forwarded)

    def _imports(self, info: DeviceInfo | None) -> None:
        self.imported = info
        log.info("client %d, %s, has imported %s", self.number, self.peer, one_line(str(info)))
        if info is not None:
            self._decide(self, info)

    def give_up(self, timestamp_ns: int) -> None:
        """Observe it no longer: its messages need too much memory."""
        if self._observer is not None:
            log.warning("client %d, %s, is forwarded, but not captured any longer: %d bytes without a whole message",
                        self.number, self.peer, self._observer.held)  # fmt: skip
            self._emit(self, self._observer.closed(timestamp_ns, "its messages need too much memory"))
            self._lose()

    def _fail(self) -> None:
        log.exception("connection %d is forwarded, but no longer observed", self.number)  # noqa: LOG004  for handlers
        self._lose()

    def _lose(self) -> None:
        self._observer = None
        if self.imported is None:
            self._decide(self, None)

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
