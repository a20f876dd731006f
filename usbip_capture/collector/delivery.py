"""Where messages go: into a capture, to a callback, to an iterator."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator

from usbip_capture.capture.log_target import LogTarget
from usbip_capture.collector.counts import Counts
from usbip_capture.collector.sender import Sender
from usbip_capture.syslog.message import Message

log = logging.getLogger(__name__)

#: Messages kept for an iterator that is not read, or slow.
BACKLOG = 4096
#: Their bytes, by a careful estimate: text takes up to four bytes for each of a message.
BACKLOG_BYTES = 16 << 20
_MESSAGE_COST, _BYTE_COST = 1024, 5
#: So many are handed to the capture at a time: further ones must not wait for long.
_BATCH = 256


class Delivery:
    """Gets messages from a collector's thread. `counts` is that thread's, for others to read.

    min_severity: 0 to 7; messages that are less severe are counted and go nowhere.
    align_clock: captured messages get the time at which they were made, as far as that is known.
    """

    def __init__(self, callback: Callable[[Message], object] | None, min_severity: int, align_clock: bool) -> None:
        self.channel: LogTarget | None = None
        self.counts = Counts()
        self._callback = callback
        self._min_severity = min_severity
        self._align = align_clock
        self._backlog: deque[Message] = deque()
        self._backlog_bytes = 0
        self._changed = threading.Condition()
        self._ended = False

    def deliver(self, sender: Sender, messages: list[Message]) -> None:
        """Hand on what came from `sender` at a time."""
        self.counts.messages += len(messages)
        if self._min_severity < 7:
            wanted = [message for message in messages if message.severity <= self._min_severity]
            self.counts.less_severe += len(messages) - len(wanted)
            messages = wanted
        if not messages or self._ended:
            return
        if self.channel is not None:
            self._capture(self.channel, sender, messages)
        if self._callback is not None:
            self._call(self._callback, messages)
        else:
            self._keep(messages)

    def lost(self, count: int) -> None:
        """So many datagrams were dropped by the system."""
        self.counts.dropped += count
        if self.channel is not None:
            self.channel.lost(count)

    def end(self) -> None:
        """Nothing comes any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Message]:
        """Messages as they come, until the end."""
        while True:
            with self._changed:
                while not self._backlog and not self._ended:
                    self._changed.wait(1.0)  # Windows cannot interrupt a wait without an end
                if not self._backlog:
                    return
                message = self._oldest()
            yield message

    def _capture(self, channel: LogTarget, sender: Sender, messages: list[Message]) -> None:
        head = sender.head
        packets: list[tuple[int, bytes, tuple[str, ...]]] = []
        for message in messages:
            comments: tuple[str, ...] = (f"usbip-capture: {message.flaw}",) if message.flaw else ()
            timestamp_ns = message.arrival_ns
            if self._align and (made_ns := sender.made_ns(message)) is not None:
                timestamp_ns = made_ns
                late = (message.arrival_ns - timestamp_ns) / 1e6
                comments += (f"usbip-capture: time of the device's clock, aligned; arrived {late:.3f} ms later",)
            packets.append((timestamp_ns, head + message.record, comments))
            if len(packets) == _BATCH:
                channel.write(packets)
                packets = []
        if packets:
            channel.write(packets)

    def _call(self, callback: Callable[[Message], object], messages: list[Message]) -> None:
        for message in messages:
            try:
                callback(message)
            except Exception:
                self.counts.callback_errors += 1
                if self.counts.callback_errors == 1:
                    log.exception("the callback failed on a message; further failures are only counted")

    def _keep(self, messages: list[Message]) -> None:
        with self._changed:
            for message in messages:
                self._backlog.append(message)
                self._backlog_bytes += _cost(message)
                while len(self._backlog) > BACKLOG or self._backlog_bytes > BACKLOG_BYTES:
                    self._oldest()
                    self.counts.missed += 1
            self._changed.notify_all()

    def _oldest(self) -> Message:
        message = self._backlog.popleft()
        self._backlog_bytes -= _cost(message)
        return message


def _cost(message: Message) -> int:
    return _MESSAGE_COST + _BYTE_COST * len(message.raw)
