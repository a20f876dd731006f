"""TCP put together again: each direction's bytes in order, once, with the gaps of the recording named.

A segment is passed on when all before it is, and when what it acknowledges of the other direction has been passed on
as well: whoever sent it had seen that. So replies come after their requests, even where the recording has swapped them.

A hole is waited for. It is a gap of the recording when the other side has acknowledged what was in it and PATIENCE is
over, when more than MAX_HELD bytes wait behind it, or when the connection or the recording ends.

Ref: RFC 9293, 3.4 and 3.10
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from usbip_capture.convert.link import ACK, FIN, RST, SYN
from usbip_capture.usb.urb import Buffer

#: Nanoseconds, in the time of the recording, that it is believed to have swapped packets over.
PATIENCE_NS: Final = 200_000_000
#: More than is ever on its way: the largest receive buffers that systems have by default are 6 MiB.
MAX_HELD = 8 << 20
_MAX_HELD_SEGMENTS = 16_384
#: Bytes of memory that a held segment takes beside its payload, about.
_HELD_OVERHEAD = 300
_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000
#: Of a segment that does more than bring bytes.
_SPECIAL: Final = 7  # FIN, SYN, RST
#: Instead of a sequence number.
_UNKNOWN: Final = -1


class _Held(NamedTuple):
    """A segment that waits. `size` counts its bytes, those too that were not recorded.

    place, order: what sorts them: where in the stream they begin, then as they came.
    """

    place: int
    order: int
    seq: int
    ack: int
    payload: Buffer
    size: int
    fin: bool
    since_ns: int


class Direction:
    """The bytes that one side sends.

    deliver(payload, timestamp_ns), gap(size, timestamp_ns) and closed(timestamp_ns) are called in order.
    following: number of the next byte to be passed on, -1 until it is known. peer: the other direction.
    clock_ns: time of what was passed on last. Bytes that had to wait in the recording only, behind a gap or behind
    packets that it has swapped, keep their own time; those behind a segment that was sent again have its time.
    retransmitted: bytes that came again.
    """

    __slots__ = (
        "_advanced",
        "_flushing",
        "_held",
        "_held_bytes",
        "_order",
        "acked",
        "clock_ns",
        "closed",
        "deliver",
        "following",
        "gap",
        "peer",
        "retransmitted",
    )

    peer: Direction

    def __init__(
        self,
        deliver: Callable[[Buffer, int], None],
        gap: Callable[[int, int], None],
        closed: Callable[[int], None],
    ) -> None:
        self.deliver = deliver
        self.gap = gap
        self.closed = closed
        self.following = _UNKNOWN
        self.acked = _UNKNOWN  # what this side has acknowledged last
        self.retransmitted = 0
        self.clock_ns = 0
        self._held: list[_Held] = []  # a heap
        self._held_bytes = 0
        self._order = 0
        self._advanced = 0  # how far `following` went while segments are held: places are counted from there
        self._flushing = False

    @property
    def memory(self) -> int:
        """Bytes of memory that what waits takes, about."""
        return sum(len(held.payload) for held in self._held) + _HELD_OVERHEAD * len(self._held)

    def segment(self, timestamp_ns: int, seq: int, ack: int, flags: int, payload: Buffer, missing: int) -> None:
        """A segment of this direction; `missing` bytes at its end were not recorded."""
        peer = self.peer
        self.acked = ack
        if (
            seq == self.following
            and not (self._held or missing or flags & _SPECIAL)
            and peer.following >= 0
            and not (peer.following - ack) & _HALF
        ):
            if payload:
                self.following = (seq + len(payload)) & _MASK
                self.clock_ns = timestamp_ns
                self.deliver(payload, timestamp_ns)
        else:
            self._other(timestamp_ns, seq, ack, flags, payload, missing)
        if peer._held:
            peer.release(timestamp_ns)

    def flush(self) -> None:
        """Pass on all that waits: nothing comes any more that could fill the holes."""
        if self._flushing:
            return  # the end of the peer, which was among it
        self._flushing = True
        while self._held:
            self._pass_on()
        self._flushing = False

    def stop(self) -> None:
        """Nothing more is passed on, and nothing is held: whoever wanted it is free to go."""
        self._held.clear()
        self._held_bytes = 0
        self.deliver = self.gap = self.closed = _nothing

    def release(self, timestamp_ns: int) -> None:
        """Pass on what waits no longer."""
        while self._held:
            head = self._held[0]
            late = timestamp_ns - head.since_ns > PATIENCE_NS
            hole = self._distance(head.seq)
            if hole > 0:
                too_much = self._held_bytes > MAX_HELD or len(self._held) > _MAX_HELD_SEGMENTS
                if not too_much and not (late and self._acknowledged(head.seq)):
                    return
            elif self._ahead_of_peer(head.ack):
                if not late:
                    return
                self.peer.catch_up(head.ack)
            if self._held:  # the end of the peer may have flushed all
                self._pass_on()

    def catch_up(self, seq: int) -> None:
        """Pass on what waits and begins before `seq`."""
        while self._held and (self._held[0].seq - seq) & _HALF:
            self._pass_on()

    def _other(self, timestamp_ns: int, seq: int, ack: int, flags: int, payload: Buffer, missing: int) -> None:
        if flags & RST:
            if abs(self._distance(seq)) > MAX_HELD:
                return  # far outside of the window: its receiver does not believe it either
            self.peer.flush()
            self.flush()
            self.closed(timestamp_ns)
            return
        if flags & SYN:
            seq = (seq + 1) & _MASK
        if self.following < 0:
            self.following = seq
        if self.peer.following < 0 and flags & ACK:
            self.peer.following = ack
        size = len(payload) + missing
        fin = bool(flags & FIN)
        if not size and not fin:
            return
        behind = -self._distance(seq)
        if behind >= size + fin and behind > 0:
            self.retransmitted += size
            return
        if not self._held:
            self._advanced = 0
        self._order += 1
        place = self._advanced - behind
        # A copy: the payload can be a small part of a large portion, which it would keep in memory.
        heappush(self._held, _Held(place, self._order, seq, ack, bytes(payload), size, fin, timestamp_ns))
        self._held_bytes += size
        self.release(timestamp_ns)

    def _pass_on(self) -> None:
        """The first segment that waits, and the hole before it."""
        head = heappop(self._held)
        self.clock_ns = timestamp_ns = max(head.since_ns, self.clock_ns, self.peer.clock_ns)
        self._held_bytes -= head.size
        if self.following < 0:
            self.following = head.seq
        distance = self._distance(head.seq)
        if distance > 0:
            self.following = head.seq
            self._advanced += distance
            self.gap(distance, timestamp_ns)
            distance = 0
        known = -distance
        self.retransmitted += min(known, head.size)
        if known < head.size:
            self.following = (head.seq + head.size) & _MASK
            self._advanced += head.size - known
            fresh = memoryview(head.payload)[known:]
            if fresh:
                self.deliver(bytes(fresh) if len(fresh) <= 4096 else fresh, timestamp_ns)
            missing = head.size - max(len(head.payload), known)
            if missing:
                self.gap(missing, timestamp_ns)
        if head.fin and known <= head.size:
            self.following = (self.following + 1) & _MASK
            self._advanced += 1
            self.peer.flush()  # it was there before the end
            self.closed(timestamp_ns)

    def _distance(self, seq: int) -> int:
        """Bytes from what is known to `seq`; negative if that came already."""
        following = seq if self.following < 0 else self.following
        distance = (seq - following) & _MASK
        return distance - (distance & _HALF) * 2

    def _acknowledged(self, seq: int) -> bool:
        """Whether the peer has acknowledged all before `seq`."""
        acked = self.peer.acked
        return acked >= 0 and not (acked - seq) & _HALF

    def _ahead_of_peer(self, ack: int) -> bool:
        """Whether the sender has seen more of the peer than was passed on."""
        following = self.peer.following
        return following >= 0 and bool((following - ack) & _HALF)


def _nothing(*_: object) -> None:
    """Of a direction that was stopped."""


def connect(one: Direction, other: Direction) -> None:
    """Make them the two directions of one connection."""
    one.peer, other.peer = other, one
