"""One connection through the relay: two sockets, and what is on its way between them.

At most one portion waits in each direction: while it does, no more is read from its sender, whose own TCP then holds
it up. The end of what one side sends is passed on as such (a half-close), a reset as a reset.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from usbip_capture.net import connecting as net
from usbip_capture.relay.readiness import BROKEN, HUNG_UP, READABLE, WRITABLE, Poller
from usbip_capture.usb.urb import Buffer

if TYPE_CHECKING:
    from usbip_capture.relay.observation import Observation

#: How much is read at once: a little where messages are small, much where they are large.
_SMALL, _LARGE = 16 << 10, 128 << 10
#: So often in a row, then others have their turn.
_AT_ONCE = 8
# struct linger: on, for 0 seconds.
_LINGER = struct.pack("@HH" if os.name == "nt" else "@ii", 1, 0)

_UNWATCHED = -1

# observation, whether the client sent it, the bytes (None: the connection is over), time stamp
Chunk = tuple["Observation", bool, "bytes | memoryview | None", int]


class Direction:
    """What one side sends, on its way to the other. rest: what the receiver has not taken yet.

    ended: the sender sends no more. ended_on: that was passed on to the receiver.
    """

    __slots__ = ("ended", "ended_on", "forwarded", "from_client", "receive", "rest", "send", "size")

    def __init__(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        self.receive = source.recv
        self.send = target.send
        self.from_client = from_client
        self.rest: Buffer = b""
        self.size = _SMALL
        self.forwarded = 0
        self.ended = self.ended_on = False


class End:
    """One of the two sockets. outgoing: what it sends us; incoming: what it is to get."""

    __slots__ = ("_connection", "_mask", "_poller", "fd", "incoming", "outgoing", "sock")

    def __init__(self, sock: socket.socket, connection: Connection, poller: Poller) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._connection = connection
        self._poller = poller
        self._mask = _UNWATCHED
        self.outgoing: Direction
        self.incoming: Direction

    def ready(self, mask: int) -> None:
        """The poller says that something can be done here."""
        connection = self._connection
        if mask & WRITABLE and not connection.over:
            self._write()
        if connection.over:
            return
        if mask & READABLE:
            self._read()
        elif mask & (BROKEN | HUNG_UP):
            if self.outgoing.rest:
                self.leave()  # it would be reported again and again; what it has sent goes out first
                connection.half_gone()
            elif self.outgoing.ended:
                connection.reset()
            else:
                self._read()

    def watch(self) -> None:
        """Have the poller tell what is wanted now."""
        outgoing = self.outgoing
        mask = 0 if outgoing.rest or outgoing.ended else READABLE
        if self.incoming.rest:
            mask |= WRITABLE
        if mask != self._mask:
            if self._mask == _UNWATCHED:
                self._poller.register(self.fd, mask)
            else:
                self._poller.modify(self.fd, mask)
            self._mask = mask

    def leave(self) -> None:
        """Have the poller say nothing of it."""
        if self._mask != _UNWATCHED:
            self._poller.unregister(self.fd)
            self._mask = _UNWATCHED

    def _read(self) -> None:
        """Forward what is there; where all came that was asked for there may be more."""
        way = self.outgoing
        asked, turns = way.size, _AT_ONCE
        while self.forward(way) >= asked and turns and not way.rest:
            asked, turns = way.size, turns - 1

    def forward(self, way: Direction) -> int:
        """Read and send on; how many bytes that were."""
        connection = self._connection
        try:
            data = way.receive(way.size)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            connection.reset()
            return 0
        if not data:
            way.ended = True
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
            way.rest = memoryview(data)[sent:]
            connection.rewatch()
        if size == way.size:
            way.size = _LARGE
        elif size < _SMALL // 4:
            way.size = _SMALL
        return size

    def _write(self) -> None:
        way, connection = self.incoming, self._connection
        if not way.rest:
            return
        try:
            way.rest = way.rest[way.send(way.rest) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            connection.refused(way)
            return
        if not way.rest:
            connection.settle(way)


class Connection:
    """A client and its connection to the server. `chunks` gets what was forwarded.

    on_over: called at the end. on_half_gone: when one side is gone, and the other has not yet taken what that has sent.
    active_ns: when something was forwarded last, or when it began.
    """

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        observation: Observation,
        poller: Poller,
        chunks: deque[Chunk],
        on_over: Callable[[Connection], None],
        on_half_gone: Callable[[Connection], None],
    ) -> None:
        self.observation = observation
        self.chunks = chunks
        self.over = self._breaking = self._half_gone = False
        self.active_ns = time.time_ns()
        self._on_over = on_over
        self._on_half_gone = on_half_gone
        self._client, self._server = client, server
        self._up, self._down = Direction(client, server, True), Direction(server, client, False)
        self.ends = End(client, self, poller), End(server, self, poller)
        for end, outgoing, incoming in zip(self.ends, (self._up, self._down), (self._down, self._up), strict=True):
            end.sock.setblocking(False)
            end.outgoing, end.incoming = outgoing, incoming
        try:
            self.rewatch()
        except BaseException:
            for end in self.ends:
                end.leave()
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
        if way.ended and not way.rest and not way.ended_on:
            way.ended_on = True
            target = self._server if way.from_client else self._client
            try:
                target.shutdown(socket.SHUT_WR)
            except OSError:
                self.refused(way)
                return
        if not (self._up.ended_on and self._down.ended_on):
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
        way.ended = way.ended_on = True
        way.rest = b""
        end = self.ends[way.from_client]
        back = end.outgoing
        while not self.over and not back.rest and end.forward(back):
            pass
        if self.over:
            return
        if back.rest:
            self.rewatch()
        else:
            self.reset()

    def half_gone(self) -> None:
        """One side is gone: the other has not all the time it wants for what is left."""
        if not self._half_gone:
            self._half_gone = True
            self._on_half_gone(self)

    @property
    def progress(self) -> tuple[int, ...]:
        """Changes with each byte that a receiver takes."""
        return *self.forwarded, len(self._up.rest), len(self._down.rest)

    def reset(self) -> None:
        """One side has reset the connection, or we do: both see a reset."""
        for sock in (self._client, self._server):
            reset_on_close(sock)
        self._close()

    def _close(self) -> None:
        if self.over:
            return
        for end in self.ends:
            end.leave()
        self.abandon()

    def abandon(self) -> None:
        """Its sockets are closed, whatever the poller thinks of them."""
        self.over = True
        for end in self.ends:
            end.sock.close()
        self._on_over(self)


def set_options(sock: socket.socket) -> None:
    """No delay; keepalive, so that a peer that vanished is noticed. A slow one has all the time it wants."""
    net.set_options(sock)
    if sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        # It would also end connections whose receiver has been too busy to take anything for a while.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def reset_on_close(sock: socket.socket) -> None:
    """Let closing tell the peer that the connection is broken, not ended."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    except OSError:
        pass  # it is gone already
