"""What is sent on the channel beside captures: lines of JSON, each with a bound.

The one who joins speaks first and shows the token: {"version": 1, "token": ..., "want": "capture" | "state" | "stop"}.
The answer is {"ok": true, ...} or {"error": SENTENCE}. Then
  - capture: pcapng to the one who joined, lines from it: {"comment": TEXT}, {"end": true}
  - state: lines with the state each time it changes, at least each second; lines back: {"drop": NUMBER}
    {"clients": [...], "hint": TEXT, "activity": TEXT, ...}; activity: what happens, where there are no clients
"""

from __future__ import annotations

import json
import socket

from usbip_capture.errors import RemoteProtocolError

VERSION = 1
_MAX_LINE = 64 << 10

Message = dict[str, object]


def send(sock: socket.socket, message: Message) -> None:
    """Send a line. Raises OSError."""
    sock.sendall(json.dumps(message).encode() + b"\n")


class Lines:
    """Bytes to messages. early: some that came with another one, and wait to be taken. longest: in bytes."""

    def __init__(self, longest: int = _MAX_LINE) -> None:
        self.rest = b""
        self.early: list[Message] = []
        self._longest = longest

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises RemoteProtocolError for anything else."""
        self.rest += data
        found = []
        while b"\n" in self.rest:
            line, _, self.rest = self.rest.partition(b"\n")
            found.append(parse(line))
        if len(self.rest) > self._longest:
            raise RemoteProtocolError("the other end of the channel sends no lines")
        return found

    def take(self) -> tuple[Message | None, bytes]:
        """The first message, and what follows it, which need not be a message."""
        if b"\n" not in self.rest:
            return None, b""
        line, _, rest = self.rest.partition(b"\n")
        self.rest = b""
        return parse(line), rest


def parse(line: bytes) -> Message:
    """One line. Raises RemoteProtocolError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(
            f"the other end of the channel sends {line[:40]!r}, which is not a message"
        ) from error
    if not isinstance(message, dict):
        raise RemoteProtocolError(f"the other end of the channel sends {line[:40]!r}, which is not a message")
    return message


def number(message: Message, name: str, default: int = 0) -> int:
    """A whole number of it, 0 or more. Raises RemoteProtocolError."""
    value = message.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RemoteProtocolError(f"{name} on the channel is {value!r}")
    return value


def text(message: Message, name: str) -> str:
    """A text of it, empty if it is not there. Raises RemoteProtocolError."""
    value = message.get(name, "")
    if not isinstance(value, str):
        raise RemoteProtocolError(f"{name} on the channel is {value!r}")
    return value
