"""Where messages of a log are put for the recorder's thread: packed already, some at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.remarks import Remark
from usbip_capture.records.pcapng import LINKTYPE_WIRESHARK_UPPER_PDU, captured_limit, pack_comments, pack_packet

#: Of the queue's memory, logs may take this part, so that a flood of messages leaves room for USB.
LOG_SHARE = 4
#: Bytes that a queued message takes beside its block.
_BLOCK_COST = 64


class LogBatch:
    """Blocks of one channel, in the order of their arrival."""

    __slots__ = ("blocks", "channel", "cost")

    def __init__(self, channel: LogChannel, blocks: list[bytes], cost: int) -> None:
        self.channel = channel
        self.blocks = blocks
        self.cost = cost


class LogChannel:
    """One log on an interface of the capture, `syslog0` and so on.

    kind: of its name, before the number. link_type: of its packets.
    received, dropped, written: messages so far; the dropped ones are a part of `received`.
    """

    link_type = LINKTYPE_WIRESHARK_UPPER_PDU

    def __init__(self, queue: EventQueue, number: int, snaplen: int, description: str, kind: str = "syslog") -> None:
        self.name = f"{kind}{number}"
        self.interface_id = queue.interfaces
        self.description = description
        self.described = False  # whether the interface is in the output
        self.start_ns = time.time_ns()
        self.received = self.dropped = self.packed = self.written = 0
        self.filtered = 0  # the capture filter is for URBs
        self.remarks: list[Remark] = []  # for the end of the capture
        self._queue = queue
        self._snaplen, self._limit = snaplen, captured_limit(snaplen)

    def write(self, messages: Sequence[tuple[int, bytes, Sequence[str]]]) -> None:
        """Capture packets: time stamp, packet with its tags, comments. Never waits; what finds no room is dropped."""
        queue = self._queue
        ended = queue.ended  # by another thread, between this look and the next
        if ended:
            return
        blocks = [self._block(*message) for message in messages]
        cost = sum(map(len, blocks)) + _BLOCK_COST * len(blocks)
        with queue.lock:
            ended = queue.ended
            if ended:
                return
            self.received += len(blocks)
            full = queue.used + min(queue.reserved, queue.max_reserved) + cost > queue.budget
            if full or queue.log_used + cost > queue.budget // LOG_SHARE:
                self.dropped += len(blocks)
                return
            queue.used += cost
            queue.log_used += cost
            queue.items.append(LogBatch(self, blocks, cost))
            wake, queue.idle = queue.idle, False
        if wake:
            queue.rouse()

    def lost(self, count: int) -> None:
        """So many messages were lost on their way to us: they count as received and dropped."""
        with self._queue.lock:
            if not self._queue.ended:
                self.received += count
                self.dropped += count

    def note(self, text: str) -> None:
        """Comment on the whole log, at the end of the capture."""
        with self._queue.lock:
            self.remarks.append(Remark(text))

    def _block(self, timestamp_ns: int, packet: bytes, comments: Sequence[str]) -> bytes:
        if not comments and len(packet) <= self._limit:
            return pack_packet(self.interface_id, timestamp_ns, packet)
        limit = captured_limit(self._snaplen, len(pack_comments(comments)) if comments else 0)
        return pack_packet(self.interface_id, timestamp_ns, packet[:limit], comments, original_length=len(packet))
