"""Log lines and remarks of a capture, as many as a person reads. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from usbip_capture.records.upper_pdu import parse_upper_pdu
from usbip_capture.syslog.message import MessageParser

#: Longest line that is kept, in characters.
MAX_LINE = 2000


@dataclass(slots=True, frozen=True)
class LogLine:
    """severity: as syslog names it. source: the interface it was captured on, or the endpoint of a failed URB."""

    timestamp_ns: int
    source: str
    severity: str
    text: str


class Log:
    """Lines in the order of the capture; of too many, the first and the last ones. `left_out` counts the others."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._first: list[LogLine] = []
        self._last: deque[LogLine] = deque()
        self.left_out = 0

    def add(self, line: LogLine) -> None:
        """Take one more line."""
        if len(self._first) < self._half:
            self._first.append(line)
            return
        if len(self._last) >= self._half:
            self._last.popleft()
            self.left_out += 1
        self._last.append(line)

    def __iter__(self) -> Iterator[LogLine]:
        yield from self._first
        yield from self._last

    def __len__(self) -> int:
        return len(self._first) + len(self._last) + self.left_out


def log_line(timestamp_ns: int, source: str, packet: bytes) -> LogLine | None:
    """The line in a packet of link type 252; None of those for other dissectors than syslog's."""
    pdu = parse_upper_pdu(packet)
    if pdu is None or pdu.dissector != "syslog":
        return None
    message = MessageParser("").parse(pdu.payload[: 4 * MAX_LINE], timestamp_ns)
    return LogLine(timestamp_ns, source, message.severity_name, message.tagged_text.strip()[:MAX_LINE])
