"""The connections of a recording, and which of them are sessions of USB/IP.

A connection is one when its client begins with an OP request, or, seen from its middle, when one of its segments begins
with a CMD_SUBMIT or CMD_UNLINK. Of others nothing is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container

from usbip_capture.address import format_address
from usbip_capture.convert.link import ACK, SYN, addresses, reverse_key
from usbip_capture.convert.reassembly import Direction, connect
from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.observed import Event
from usbip_capture.wire.observer import Observer
from usbip_capture.wire.recognition import command_length, is_operation_request
from usbip_capture.wire.structs import HEADER_SIZE, OP_COMMON

#: Connections that are followed at the same time; from then on the one that began first is given up.
MAX_CONNECTIONS = 65_536

_COMMAND_STARTS = (b"\0\0\0\x01", b"\0\0\0\x02")


class Session:
    """One connection. number: counts from 1 when it is known to be USB/IP, 0 before.

    server: address of the server, for people. first: number of the first byte of the client.
    """

    def __init__(self, table: SessionTable, key: bytes, first: int, *, from_start: bool, forced: bool) -> None:
        self.number = 0
        self.first = first
        _, _, host, port = addresses(key)
        self.server = format_address(host, port)
        self.observer = Observer(from_start=from_start)
        self.client = Direction(self._client, self._client_gap, self._closed)
        self.client.following = first
        self.peer = Direction(self._server, self._server_gap, self._closed)
        connect(self.client, self.peer)
        self.keys = (key, reverse_key(key))
        self._table = table
        self._begin = b""
        if forced or not from_start:
            table.begins(self)

    def flush(self) -> None:
        """Hand on what still waits: nothing more comes."""
        self.client.flush()
        self.peer.flush()

    def _client(self, payload: Buffer, timestamp_ns: int) -> None:
        if not self.number:
            self._begin += bytes(payload)
            if len(self._begin) < OP_COMMON.size:
                return
            if not is_operation_request(self._begin):
                self._table.forget(self)
                return
            payload, self._begin = self._begin, b""
            self._table.begins(self)
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
        self._sessions: dict[bytes, Session] = {}  # by the client's key

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
        if opening and key in self._sessions:
            session = self._sessions[key]
            if session.first == (seq + 1) & 0xFFFFFFFF:
                return session.client  # the same one, sent again, or late
            self._abandon(session, timestamp_ns)
        from_start = opening or is_operation_request(payload[:8])
        if not (from_start or forced or _is_command(payload)):
            return None
        if len(self.directions) >= 2 * MAX_CONNECTIONS:
            self._give_up_oldest()
        session = Session(self, key, (seq + opening) & 0xFFFFFFFF, from_start=from_start, forced=forced)
        if flags & ACK:
            session.peer.following = ack
        self._sessions[key] = session
        self.directions[key] = session.client
        self.directions[session.keys[1]] = session.peer
        return session.client

    def finish(self) -> None:
        """The recording ends here."""
        for session in list(self._sessions.values()):
            session.flush()
            self._count(session)
        self._sessions.clear()
        self.directions.clear()

    def begins(self, session: Session) -> None:
        """This connection is a session."""
        self.sessions += 1
        session.number = self.sessions

    def ended(self, session: Session) -> None:
        """Of this session nothing more is wanted, but its stray packets are not to be taken for a new one."""
        self._count(session)
        silent = _Silent()
        for key in session.keys:
            self.directions[key] = silent

    def forget(self, session: Session) -> None:
        """This connection is none of USB/IP."""
        for key in session.keys:
            self.directions.pop(key, None)
        self._sessions.pop(session.keys[0], None)

    def _abandon(self, session: Session, timestamp_ns: int) -> None:
        """The client has opened a new connection in its place."""
        session.flush()
        if session.number:
            self.emit(session, session.observer.closed(timestamp_ns, "the client has begun a new connection"))
            self._count(session)
        self.forget(session)

    def _give_up_oldest(self) -> None:
        key = next(iter(self.directions))
        session = self._sessions.get(key) or self._sessions.get(reverse_key(key))
        if session is None:
            del self.directions[key]
            return
        session.flush()
        if session.number:
            self._count(session)
        self.forget(session)

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


def _is_command(payload: Buffer) -> bool:
    if len(payload) < HEADER_SIZE or payload[:4] not in _COMMAND_STARTS:
        return False
    return bool(command_length(payload, 0, None))
