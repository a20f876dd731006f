"""Events that were queued and are not written: the counts of their channels, and their room in the queue."""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.capture.channel import Item
from usbip_capture.capture.event_queue import EventQueue
from usbip_capture.capture.log_channel import LogBatch


def uncount(items: Sequence[Item]) -> None:
    """Uncount URBs as captured whose completions are not written; the queue is locked."""
    for item in items:
        if isinstance(item, tuple) and (completion := item[7]) is not None:
            item[0].urbs -= 1
            item[0].bytes -= completion.actual_length


def drop(queue: EventQueue, batch: list[Item]) -> None:
    """Count all of the batch as dropped, and empty it."""
    with queue.lock:
        uncount(batch)
        for item in batch:
            if isinstance(item, tuple):
                item[0].dropped += 1
                queue.used -= item[2]
            elif isinstance(item, LogBatch):
                item.channel.dropped += len(item.blocks)
                queue.used -= item.cost
                queue.log_used -= item.cost
    batch.clear()
