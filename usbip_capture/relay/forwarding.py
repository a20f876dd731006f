"""One connection through the relay: two transports, and what is on its way between them.

At most one portion waits in each direction: while it does, no more is read from its sender, whose own TCP then holds
it up. The end of what one side sends is passed on as such (a half-close), a reset as a reset.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.net.transport import CarrierFailed, NonBlocking, Transport
from usbip_capture.relay.readiness import BROKEN, HUNG_UP, READABLE, WRITABLE, Poller
from usbip_capture.usb.urb import Buffer

if TYPE_CHECKING:
    from usbip_capture.relay.observation import Observation

log = logging.getLogger(__name__)

#: How much is read at once: a little where messages are small, much where they are large: four replies of 64 KiB. What
#: ends where a message ends need not be joined with what follows.
_SMALL, _LARGE = 16 << 10, 272 << 10
#: So often in a row, then others have their turn.
_AT_ONCE = 8
_UNWATCHED = -1

# observation, whether the client sent it, the bytes (None: the connection is over), time stamp
Chunk = tuple["Observation", bool, "bytes | memoryview | None", int]


class Direction:
    """What one side sends, on its way to the other. unsent: what the receiver has not taken yet.

    eof_seen: the sender sends no more. eof_sent: that was passed on to the receiver. held: the sender is not read from.
    """

    __slots__ = (
        "eof_seen", "eof_sent", "forwarded", "from_client", "held", "pending", "receive", "send", "size", "unsent",
    )  # fmt: skip

    def __init__(self, source: NonBlocking, target: NonBlocking, from_client: bool) -> None:
        self.receive = source.receive
        self.pending = source.pending
        self.send = target.send
        self.from_client = from_client
        self.unsent: Buffer = b""
        self.size = _SMALL
        self.forwarded = 0
        self.eof_seen = self.eof_sent = self.held = False


class End:
    """One of the two sides. outgoing: what it sends us; incoming: what it is to get."""

    __slots__ = ("_connection", "_mask", "_poller", "fd", "incoming", "outgoing", "transport")

    def __init__(
        self,
        transport: Transport,
        fd: int,
        outgoing: Direction,
        incoming: Direction,
        connection: Connection,
        poller: Poller,
    ) -> None:
        self.transport = transport
        self.fd = fd
        self.outgoing = outgoing
        self.incoming = incoming
        self._connection = connection
        self._poller = poller
        self._mask = _UNWATCHED

    def ready(self, mask: int) -> None:
        """The poller reports that something can be done here."""
        connection = self._connection
        if mask & WRITABLE and not connection.over:
            self._write()
        if connection.over:
            return
        if mask & READABLE:
            self.read()
        elif mask & (BROKEN | HUNG_UP):
            if self.outgoing.unsent:
                self.stop_polling()  # it would be reported again and again; what it has sent goes out first
                connection.bound_drain()
            elif self.outgoing.eof_seen or self.outgoing.held:
                connection.reset()
            else:
                self.read()

    def watch(self) -> None:
        """Have the poller report what is wanted now."""
        outgoing = self.outgoing
        mask = 0 if outgoing.unsent or outgoing.eof_seen or outgoing.held else READABLE
        if self.incoming.unsent:
            mask |= WRITABLE
        if mask != self._mask:
            if self._mask == _UNWATCHED:
                self._poller.register(self.fd, mask)
            else:
                self._poller.modify(self.fd, mask)
            self._mask = mask

    def stop_polling(self) -> None:
        """Have the poller report nothing of it."""
        if self._mask != _UNWATCHED:
            self._poller.unregister(self.fd)
            self._mask = _UNWATCHED

    def read(self) -> None:
        """Forward what is there; where all came that was asked for there may be more."""
        way = self.outgoing
        asked, turns = way.size, _AT_ONCE
        # The poller reports what the system has, not what the transport has taken from it already.
        while self.forward(way) >= asked and (turns > 0 or way.pending()) and not way.unsent:
            asked, turns = way.size, turns - 1

    def forward(self, way: Direction) -> int:
        """Read and send on; how many bytes that were."""
        connection = self._connection
        try:
            data = way.receive(way.size)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if isinstance(error, CarrierFailed):
                log.warning("client %d: %s", connection.observation.number, error)
            connection.reset()
            return 0
        if not data:
            way.eof_seen = True
            connection.settle(way)
            return 0
        try:
            sent = way.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            connection.refused(way)
            return 0
        connection.active_ns = now_ns = time.time_ns()
        connection.chunks.append((connection.observation, way.from_client, data, now_ns))
        size = len(data)
        way.forwarded += size
        if sent != size:
            way.unsent = memoryview(data)[sent:]
            connection.rewatch()
        if size == way.size:
            way.size = _LARGE
        elif size < _SMALL // 4:
            way.size = _SMALL
        return size

    def _write(self) -> None:
        way, connection = self.incoming, self._connection
        if not way.unsent:
            return
        try:
            sent = way.send(way.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            connection.refused(way)
            return
        way.unsent = way.unsent[sent:]
        if not way.unsent:
            connection.settle(way)
            if way.pending() and not connection.over:
                connection.ends[not way.from_client].read()


class Connection:
    """A client and its connection to the server. `chunks` gets what was forwarded.

    on_over: called at the end. on_drain: when one side is gone, and the other has not yet taken what that has sent.
    active_ns: when something was forwarded last, or when it began. address: whose client it is, as limits count it.
    """

    address = ""

    def __init__(
        self,
        client: Transport,
        server: Transport,
        observation: Observation,
        poller: Poller,
        chunks: deque[Chunk],
        on_over: Callable[[Connection], None],
        on_drain: Callable[[Connection], None],
    ) -> None:
        self.observation = observation
        self.chunks = chunks
        self.over = self._breaking = self._draining = False
        self.active_ns = time.time_ns()
        self._on_over = on_over
        self._on_drain = on_drain
        for_client, for_server = client.nonblocking(), server.nonblocking()
        self._up, self._down = Direction(for_client, for_server, True), Direction(for_server, for_client, False)
        self.ends = (
            End(client, for_client.fileno, self._up, self._down, self, poller),
            End(server, for_server.fileno, self._down, self._up, self, poller),
        )
        try:
            self.rewatch()
        except BaseException:
            for end in self.ends:
                end.stop_polling()
            raise

    @property
    def forwarded(self) -> tuple[int, int]:
        """Bytes from the client, and from the server."""
        return self._up.forwarded, self._down.forwarded

    def rewatch(self) -> None:
        """What is waited for may have changed."""
        for end in self.ends:
            end.watch()

    def settle(self, way: Direction) -> None:
        """Nothing of this direction waits any more, or its sender has ended it: pass the end on."""
        if way.eof_seen and not way.unsent and not way.eof_sent:
            way.eof_sent = True
            try:
                self.ends[way.from_client].transport.end_sending()
            except OSError:
                self.refused(way)
                return
        if not (self._up.eof_sent and self._down.eof_sent):
            self.rewatch()
        elif self._breaking:
            self.reset()
        else:
            self._close()

    def refused(self, way: Direction) -> None:
        """The receiver of this direction is gone: what it has sent before goes out, then the other is disconnected."""
        if self._breaking:
            self.reset()
            return
        self._breaking = True
        way.eof_seen = way.eof_sent = True
        way.unsent = b""
        end = self.ends[way.from_client]
        back = end.outgoing
        while not self.over and not back.unsent and end.forward(back):
            pass
        if self.over:
            return
        if back.unsent:
            self.rewatch()
        else:
            self.reset()

    def turn_away(self, answer: bytes) -> None:
        """The client gets this answer, and the end of the stream; the connection to the server is broken off.

        A client that does not even take that, as it has not read what was for it before, is reset.
        """
        client, server = self.ends
        server.transport.reset_on_close()
        try:
            if self._down.unsent or self._down.send(answer) != len(answer):
                raise BlockingIOError
            client.transport.end_sending()
        except OSError:
            client.transport.reset_on_close()
        self._close()

    def bound_drain(self) -> None:
        """One peer is gone: limit how long the other may take to accept the unsent bytes."""
        if not self._draining:
            self._draining = True
            self._on_drain(self)

    @property
    def progress(self) -> tuple[int, ...]:
        """Changes with each byte that a receiver takes."""
        return *self.forwarded, len(self._up.unsent), len(self._down.unsent)

    def reset(self) -> None:
        """One side has reset the connection, or we do: both see a reset."""
        for end in self.ends:
            end.transport.reset_on_close()
        self._close()

    def _close(self) -> None:
        if self.over:
            return
        for end in self.ends:
            end.stop_polling()
        self.abandon()

    def abandon(self) -> None:
        """Its transports are closed, whatever the poller thinks of them."""
        self.over = True
        for end in self.ends:
            end.transport.close()
        self._on_over(self)
