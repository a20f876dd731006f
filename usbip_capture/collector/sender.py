"""One sender of messages: its stream's framing, its parser, its clocks, its address in the capture."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from usbip_capture.records.upper_pdu import TCP, Flow, pack_head
from usbip_capture.syslog import LOG_PORT
from usbip_capture.syslog.clock import AlignedClock
from usbip_capture.syslog.framing import Frame, Framer
from usbip_capture.syslog.message import Message, MessageParser

#: Clocks that are distinguished in what one sender, perhaps a relay, passes on.
_MAX_CLOCKS = 256
#: Stands for a connection within this process, which has no address.
_HERE = ("127.0.0.1", LOG_PORT)


class Sender:
    """source: the address that messages carry. head: what stands before each of them in a capture."""

    def __init__(self, flow: Flow) -> None:
        self.source = flow.source
        self.head = pack_head("syslog", flow)
        self.framer = Framer()
        self._clocks: dict[tuple[str, bool], AlignedClock] = {}
        self._parser = MessageParser(flow.source, flow.source)

    def received(self, data: bytes, arrival_ns: int) -> list[Message]:
        """The messages that a piece of the stream completes."""
        return self.parse(self.framer.feed(data), arrival_ns)

    def ended(self, arrival_ns: int) -> list[Message]:
        """What is left when the stream has ended."""
        return self.parse(self.framer.end(), arrival_ns)

    def parse(self, frames: list[Frame], arrival_ns: int) -> list[Message]:
        """The messages in these frames."""
        parse = self._parser.parse
        return [parse(frame, arrival_ns, flaw) for frame, flaw in frames]

    def made_ns(self, message: Message) -> int | None:
        """When `message` was made, in nanoseconds of our clock; None if it has no time.

        A relay passes on messages of many hosts, each with a clock of its own; and an uptime is another than a stamp.
        """
        device_ns = message.device_ns
        if device_ns is None:
            return None
        key = message.hostname, bool(message.timestamp)
        clock = self._clocks.get(key)
        if clock is None:
            if len(self._clocks) >= _MAX_CLOCKS:
                del self._clocks[next(iter(self._clocks))]
            clock = self._clocks[key] = AlignedClock()
        return clock.align(device_ns, message.arrival_ns)


def flow_of(sock: socket.socket) -> Flow:
    """From the peer of a connection to us. Raises OSError if it is gone already."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return Flow(*_HERE, *_HERE, TCP)
    return Flow(*endpoint(sock.getpeername()), *endpoint(sock.getsockname()), TCP)


def endpoint(address: Any) -> tuple[str, int]:
    """Address and port of a socket address; IPv4 that came in by a socket of IPv6 is IPv4."""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip), address[1]
