"""The connections of a recording, and which of them are sessions of USB/IP.

A connection is one when its client begins with an OP request, or, seen from its middle, when one of its segments begins
with a CMD_SUBMIT or CMD_UNLINK. Of others nothing is kept.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Container

from usbip_capture.convert.link import ACK, SYN, addresses, reverse_key
from usbip_capture.convert.reassembly import Direction, connect
from usbip_capture.net.address import format_address
from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.observed import Event, Noted
from usbip_capture.wire.observer import Observer
from usbip_capture.wire.recognition import command_length, is_operation_request
from usbip_capture.wire.structs import HEADER_SIZE, OP_COMMON

#: Connections that are followed at the same time; from then on the oldest is given up.
MAX_CONNECTIONS = 65_536
#: Bytes of memory that all connections may take together, about; from then on those that take most are given up.
MAX_MEMORY = 64 << 20
#: Bytes of the recording after which that is looked at: it costs time for each connection.
_CHECK_AFTER = 4 << 20
# Bytes of memory that a connection takes with nothing held: one that may become a session, and a session.
_CANDIDATE_SIZE, _SESSION_SIZE = 1500, 6000
_TOO_MANY = "given up: more than {} connections at the same time"
_TOO_MUCH = "given up: what waits for its rest, of all connections, takes more than {} MiB"

_COMMAND_STARTS = (b"\0\0\0\x01", b"\0\0\0\x02")


class Session:
    """One connection. number: counts from 1 when it is known to be USB/IP, 0 before.

    first: number of the first byte of the client. observer: there when the connection has its number.
    """

    __slots__ = ("_begin", "_from_start", "_table", "client", "first", "keys", "number", "observer", "peer")

    observer: Observer

    def __init__(self, table: SessionTable, key: bytes, first: int, *, from_start: bool, forced: bool) -> None:
        self.number = 0
        self.first = first
        self.client = Direction(self._client, self._client_gap, self._closed)
        self.client.following = first
        self.peer = Direction(self._server, self._server_gap, self._closed)
        connect(self.client, self.peer)
        self.keys = (key, reverse_key(key))
        self._table = table
        self._begin = b""
        self._from_start = from_start
        if forced or not from_start:
            self._begins()

    @property
    def server(self) -> str:
        """Address of the server, for people."""
        _, _, host, port = addresses(self.keys[0])
        return format_address(host, port)

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes, about."""
        waiting = self.client.memory + self.peer.memory
        return waiting + (_SESSION_SIZE + self.observer.memory if self.number else _CANDIDATE_SIZE)

    def _begins(self) -> None:
        self.observer = Observer(from_start=self._from_start)
        self._table.begins(self)

    def flush(self) -> None:
        """Hand on what still waits: nothing more comes."""
        self.client.flush()
        self.peer.flush()

    def stop(self) -> None:
        """Drop what is held. What refers to this session in a circle would stay in memory for a while."""
        self.client.stop()
        self.peer.stop()
        if self.number:
            self.observer.drop()

    def _client(self, payload: Buffer, timestamp_ns: int) -> None:
        if not self.number:
            self._begin += bytes(payload)
            if len(self._begin) < OP_COMMON.size:
                return
            if not is_operation_request(self._begin):
                self._table.forget(self)
                return
            payload, self._begin = self._begin, b""
            self._begins()
        events = self.observer.client(payload, timestamp_ns)
        if events:
            self._table.emit(self, events)

    def _server(self, payload: Buffer, timestamp_ns: int) -> None:
        if not self.number:
            self._table.forget(self)  # in USB/IP the client speaks first
            return
        events = self.observer.server(payload, timestamp_ns)
        if events:
            self._table.emit(self, events)

    def _client_gap(self, size: int, timestamp_ns: int) -> None:
        if not self.number:
            self._table.forget(self)
            return
        self._table.emit(self, self.observer.client_gap(size, timestamp_ns))

    def _server_gap(self, size: int, timestamp_ns: int) -> None:
        if self.number:
            self._table.emit(self, self.observer.server_gap(size, timestamp_ns))

    def _closed(self, timestamp_ns: int) -> None:
        if self.number:
            self._table.emit(self, self.observer.closed(timestamp_ns))
            self._table.ended(self)
        else:
            self._table.forget(self)


class SessionTable:
    """Connections in, events out. `emit` is called with those of one session at a time.

    ports: of servers; only connections to them are looked at, and each is taken for USB/IP. None: all, by content.
    directions: those that are followed, by `link.Segment`'s addresses and ports.
    sessions: how many were found. retransmitted: bytes that came again in those that have ended.
    counts: what was wrong in them, see `Observer.counts`.
    """

    def __init__(self, emit: Callable[[Session, list[Event]], None], ports: Container[int] | None = None) -> None:
        self.emit = emit
        self.sessions = 0
        self.retransmitted = 0
        self.counts: Counter[str] = Counter()
        self._ports = ports
        self.directions: dict[bytes, Direction] = {}
        # By the client's key, the oldest first. Ordered: the first of a dict is behind all that were deleted.
        self._candidates: OrderedDict[bytes, Session] = OrderedDict()  # not known to be USB/IP
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._ended: OrderedDict[bytes, bytes] = OrderedDict()  # to the server's key
        self._unchecked = 0  # bytes of the recording

    def opened(
        self, timestamp_ns: int, key: bytes, seq: int, ack: int, flags: int, payload: Buffer
    ) -> Direction | None:
        """The direction of a segment that opens a connection or is of none in `directions`, see `link.Segment`.

        None if it is not worth following.
        """
        known = self.directions.get(key)
        opening = bool(flags & SYN and not flags & ACK)
        if known is not None and not opening:
            return known
        forced = self._ports is not None
        if not (payload or opening) or (self._ports is not None and int.from_bytes(key[-2:], "big") not in self._ports):
            return None
        before = self._sessions.get(key) or self._candidates.get(key) if opening else None
        if before is not None:
            if before.first == (seq + 1) & 0xFFFFFFFF:
                return before.client  # the same one, sent again, or late
            self._give_up(before, timestamp_ns, "the client has begun a new connection")
        from_start = opening or is_operation_request(payload[:8])
        if not (from_start or forced or _is_command(payload)):
            return None
        if len(self._candidates) + len(self._sessions) + len(self._ended) >= MAX_CONNECTIONS:
            self._give_up_oldest(timestamp_ns)
        self._ended.pop(key, None)
        session = Session(self, key, (seq + opening) & 0xFFFFFFFF, from_start=from_start, forced=forced)
        if flags & ACK:
            session.peer.following = ack
        if not session.number:
            self._candidates[key] = session
        self.directions[key] = session.client
        self.directions[session.keys[1]] = session.peer
        return session.client

    def portion(self, timestamp_ns: int, size: int) -> None:
        """A portion of the recording begins, of `size` bytes: connections that take too much memory are given up."""
        self._unchecked += size
        if self._unchecked < _CHECK_AFTER:
            return
        self._unchecked = 0
        for session in self._sessions.values():
            session.observer.own()
        memory = {session: session.memory for session in (*self._candidates.values(), *self._sessions.values())}
        total = sum(memory.values())
        if total <= MAX_MEMORY:
            return
        for session in sorted(memory, key=lambda session: (session.number > 0, -memory[session])):
            self._give_up(session, timestamp_ns, _TOO_MUCH.format(MAX_MEMORY >> 20), fault=True)
            total -= memory[session]
            if total <= MAX_MEMORY // 2:
                break

    def finish(self) -> None:
        """The recording ends here."""
        for session in (*self._candidates.values(), *self._sessions.values()):
            session.flush()
            self._count(session)
        self._candidates.clear()
        self._sessions.clear()
        self._ended.clear()
        self.directions.clear()

    def begins(self, session: Session) -> None:
        """This connection is a session."""
        self.sessions += 1
        session.number = self.sessions
        self._candidates.pop(session.keys[0], None)
        self._sessions[session.keys[0]] = session

    def ended(self, session: Session) -> None:
        """Of this session nothing more is wanted, but its stray packets are not to be taken for a new one."""
        self._count(session)
        session.stop()
        if self._follows_no_longer(session):
            self._ended[session.keys[0]] = session.keys[1]
            self.directions.update(dict.fromkeys(session.keys, _SILENT))

    def forget(self, session: Session) -> None:
        """This connection is not followed any longer."""
        session.stop()
        self._follows_no_longer(session)
        self._candidates.pop(session.keys[0], None)

    def _follows_no_longer(self, session: Session) -> bool:
        """Whether it was followed; another connection can have taken its place."""
        if self.directions.get(session.keys[0]) is not session.client:
            return False
        for key in session.keys:
            self.directions.pop(key, None)
        return True

    def _give_up(self, session: Session, timestamp_ns: int, reason: str, *, fault: bool = False) -> None:
        """It is over for us: its URBs are completed as at the end of a connection."""
        session.flush()
        if session.number and not session.observer.ended:
            noted: list[Event] = []
            if fault:
                session.observer.counts[reason] += 1
                noted.append(Noted(timestamp_ns, reason))
            self.emit(session, noted + session.observer.closed(timestamp_ns, reason))
        self._count(session)
        self.forget(session)

    def _give_up_oldest(self, timestamp_ns: int) -> None:
        """One that may never become a session, else one that is over, else a session."""
        if not self._candidates and self._ended:
            for key in self._ended.popitem(last=False):
                if self.directions.get(key) is _SILENT:
                    del self.directions[key]
            return
        session = next(iter((self._candidates or self._sessions).values()))
        self._give_up(session, timestamp_ns, _TOO_MANY.format(MAX_CONNECTIONS), fault=True)

    def _count(self, session: Session) -> None:
        """The session is over. It may have been so already: what waited can hold its end."""
        if self._sessions.pop(session.keys[0], None) is None:
            return
        if session.number and session.client.clock_ns and not session.peer.clock_ns:
            session.observer.counts["nothing that the server sent is in the recording"] += 1
        self.counts += session.observer.counts
        self.retransmitted += session.client.retransmitted + session.peer.retransmitted


class _Silent(Direction):
    """What is left of a connection that is over."""

    __slots__ = ()

    def __init__(self) -> None:
        """Nothing is kept."""

    def segment(self, timestamp_ns: int, seq: int, ack: int, flags: int, payload: Buffer, missing: int) -> None:
        pass


_SILENT = _Silent()


def _is_command(payload: Buffer) -> bool:
    if len(payload) < HEADER_SIZE or payload[:4] not in _COMMAND_STARTS:
        return False
    return bool(command_length(payload, 0, None))
