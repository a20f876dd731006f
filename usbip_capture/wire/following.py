"""Follows the two byte streams of a session: cuts them into messages, and finds the way back after a gap or nonsense.

Which message is at hand, how long it is and what it means is decided by the class that follows them.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections import Counter

from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.observed import Ended, Event, Noted, Stream
from usbip_capture.wire.structs import HEADER_SIZE

#: Parts of what is at least so long are not copied for the events.
_OWN_COPY = 4096
#: So many bytes without a message are the end of the attempt.
GIVE_UP = 64 << 20


class Follower(metaclass=ABCMeta):
    """Both directions of one connection.

    counts: how often each thing that should not be there was seen.
    ended: nothing more is read.
    """

    def __init__(self, from_start: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.ended = False
        self._client = Stream("client")
        self._server = Stream("server")
        self._client.lost = self._server.lost = not from_start
        self._events: list[Event] = []

    @property
    def held(self) -> int:
        """Bytes that are kept of messages that are not complete."""
        return sum(stream.have for stream in (self._client, self._server) if stream.parts)

    def client(self, data: Buffer, timestamp_ns: int) -> list[Event]:
        """The client has sent `data`."""
        return self._feed(self._client, data, timestamp_ns)

    def server(self, data: Buffer, timestamp_ns: int) -> list[Event]:
        """The server has sent `data`."""
        return self._feed(self._server, data, timestamp_ns)

    def client_gap(self, size: int, timestamp_ns: int) -> list[Event]:
        """`size` bytes that the client has sent were not recorded."""
        return self._gap(self._client, size, timestamp_ns)

    def server_gap(self, size: int, timestamp_ns: int) -> list[Event]:
        """`size` bytes that the server has sent were not recorded."""
        return self._gap(self._server, size, timestamp_ns)

    def own(self) -> None:
        """Copy what is held of them, so that it does not keep larger buffers in memory; nor do the last events."""
        self._events = []
        for stream in (self._client, self._server):
            if stream.parts:
                stream.parts = [b"".join(stream.parts)]

    def drop(self) -> None:
        """Forget what is held of them: the connection is over."""
        self._events = []
        self._client.parts = []
        self._server.parts = []

    @abstractmethod
    def _command(self, stream: Stream, data: Buffer, at: int, size: int, timestamp_ns: int) -> int:
        """Read the message at `at`, of which `size` bytes are at hand: its length, or 0 and `stream.need` is set."""

    @abstractmethod
    def _reply(self, stream: Stream, data: Buffer, at: int, size: int, timestamp_ns: int) -> int:
        """The same of the server."""

    @abstractmethod
    def _find(self, stream: Stream, data: Buffer, at: int) -> int:
        """Where the next message begins, -1 if none does."""

    @abstractmethod
    def _doubt(self, stream: Stream) -> None:
        """Messages of this stream may have been missed from here on."""

    def _feed(self, stream: Stream, data: Buffer, timestamp_ns: int) -> list[Event]:
        """Read all messages that are complete."""
        if self.ended:
            return []
        events: list[Event] = []
        self._events = events
        if stream.skip:
            taken = min(stream.skip, len(data))
            stream.skip -= taken
            data = memoryview(data)[taken:]
        if stream.parts:
            stream.parts.append(data)
            stream.have += len(data)
            if stream.have < stream.need:
                return events
            data = b"".join(stream.parts)
            stream.parts = []
            if len(data) >= _OWN_COPY:
                data = memoryview(data)
        at, end, is_client = 0, len(data), stream is self._client
        while at < end:
            if stream.lost:
                size = self._search(stream, data, at, timestamp_ns)
            elif is_client:
                size = self._command(stream, data, at, end - at, timestamp_ns)
            else:
                size = self._reply(stream, data, at, end - at, timestamp_ns)
            if not size:
                stream.parts = [data[at:] if at else data]
                stream.have = end - at
                break
            at += size
        return events

    def _gap(self, stream: Stream, size: int, timestamp_ns: int) -> list[Event]:
        """A message whose data has a hole is handed on without what follows the hole, and its end is known."""
        if self.ended or size <= 0:
            return []
        events: list[Event] = []
        self._events = events
        self._count(f"gap in what the {stream.name} sent")
        note = f"{size} bytes that the {stream.name} sent are not in the recording"
        events.append(Noted(timestamp_ns, note))
        if stream.lost:
            stream.parts = []
            self._doubt(stream)
            return events
        inside = stream.skip
        if stream.parts and stream.have >= HEADER_SIZE and stream.need > HEADER_SIZE and not stream.parts[0][0]:
            inside = stream.need - stream.have
            stream.hole = stream.have
            data = b"".join([*stream.parts, bytes(inside)])
            stream.need = 0
            if not self._first(stream, data, 0, timestamp_ns) or stream.need:
                inside = 0
            stream.hole = 0
        elif stream.parts:
            inside = 0
        stream.parts = []
        stream.skip = max(inside - size, 0)
        if size > inside:
            stream.lost = True
            self._doubt(stream)
        return events

    def _search(self, stream: Stream, data: Buffer, at: int, timestamp_ns: int) -> int:
        """How much to leave out up to the next message, but for what may be the beginning of one."""
        found = self._find(stream, data, at)
        if found >= 0:
            self._doubt(stream)
            stream.lost = False
            stream.skipped = 0
            self._count(f"found back into what the {stream.name} sent")
            if found > at:
                return found - at
            return self._first(stream, data, at, timestamp_ns)
        left_out = max(len(data) - at - (HEADER_SIZE - 1), 0)
        stream.skipped += left_out
        if stream.skipped > GIVE_UP:
            reason = f"no USB/IP message in {GIVE_UP} bytes that the {stream.name} sent"
            self._count(f"gave up: {reason}")
            self._events += [Noted(timestamp_ns, f"gave up: {reason}"), Ended(timestamp_ns, reason)]
            self.ended = True
            return len(data) - at
        stream.need = HEADER_SIZE
        return left_out

    def _first(self, stream: Stream, data: Buffer, at: int, timestamp_ns: int) -> int:
        if stream is self._client:
            return self._command(stream, data, at, len(data) - at, timestamp_ns)
        return self._reply(stream, data, at, len(data) - at, timestamp_ns)

    def _lose(self, stream: Stream, reason: str, timestamp_ns: int) -> int:
        """The stream cannot be followed here: one byte is left out, the search goes on behind it."""
        stream.lost = True
        self._doubt(stream)
        self._count(reason)
        self._events.append(Noted(timestamp_ns, f"{reason}: looking for the next message"))
        return 1

    def _count(self, reason: str) -> None:
        self.counts[reason] += 1
