"""What was forwarded and is not observed yet: a slice of it at a time, so that nobody waits long for what others sent.

Messages differ in the work that they make by a thousand times, and a peer chooses which it sends. So the slices are
measured in time, and a connection that is far behind is not read from until it has caught up.
"""

from __future__ import annotations

import time
from collections import deque

from usbip_capture.relay.forwarding import Chunk
from usbip_capture.relay.observation import Observation

#: How long to observe before what is ready is forwarded again, in nanoseconds.
_SLICE_NS = 1_000_000
#: Pieces that a chunk is cut into where it takes longer than that, at least and at most.
_LEAST, _WHOLE = 1 << 10, 272 << 10
#: Bytes of a connection that may wait, and how many more each chunk counts for.
_FAR_BEHIND, _CHUNK_COST = 512 << 10, 2048


class Backlog:
    """chunks: what waits, in the order in which it was forwarded. No data: the connection has ended there."""

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()

    def observe(self) -> int:
        """Observe for a moment; the time stamp of what was observed last."""
        chunks, limit_ns = self.chunks, 0
        while True:
            observation, from_client, data, timestamp_ns = chunks.popleft()
            if data is None:
                observation.ended(timestamp_ns)
            elif len(data) <= _LEAST:
                observation.saw(from_client, data, timestamp_ns)
            else:
                self._measured(observation, from_client, data, timestamp_ns)
            if not chunks:
                return timestamp_ns
            now_ns = time.perf_counter_ns()
            if not limit_ns:
                limit_ns = now_ns + _SLICE_NS
            elif now_ns > limit_ns:
                return timestamp_ns

    def observe_all(self) -> None:
        """Observe what there is."""
        while self.chunks:
            self.observe()

    def far_behind(self) -> set[Observation]:
        """Connections of which much waits."""
        waiting: dict[Observation, int] = {}
        for observation, _, data, _ in self.chunks:
            waiting[observation] = waiting.get(observation, 0) + _CHUNK_COST + len(data or b"")
        return {observation for observation, size in waiting.items() if size > _FAR_BEHIND}

    def _measured(
        self, observation: Observation, from_client: bool, data: bytes | memoryview, timestamp_ns: int
    ) -> None:
        piece = observation.piece
        if len(data) > piece:
            data = memoryview(data)
            self.chunks.appendleft((observation, from_client, data[piece:], timestamp_ns))
            data = data[:piece]
        begin_ns = time.thread_time_ns()  # what a busy machine does meanwhile is not the cost of the messages
        observation.saw(from_client, data, timestamp_ns)
        taken_ns = time.thread_time_ns() - begin_ns
        if taken_ns > _SLICE_NS:
            observation.piece = max(len(data) // 4, _LEAST)
        elif taken_ns < _SLICE_NS // 4 and piece < _WHOLE:
            observation.piece = piece * 2
