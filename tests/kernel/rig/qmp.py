"""QEMU's control connection: one command at a time, and the events that come between.

Ref: QEMU Machine Protocol Specification
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.kernel.rig.host import RigError


class Qmp:
    """Call it with a command and its arguments; the answer is what QEMU returned.

    Raises RigError when QEMU refuses, is gone, or sends nothing for `timeout` seconds.
    """

    def __init__(self, sock: socket.socket, timeout: float = 60.0) -> None:
        sock.settimeout(timeout)
        self._sock = sock
        self._lines = sock.makefile("r")
        self._events: deque[dict[str, Any]] = deque(maxlen=100)
        self._receive()  # the greeting
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        self._sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            message = self._receive()
            if "error" in message:
                raise RigError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self._events.append(message)

    def wait(self, event: str, accept: Callable[[dict[str, Any]], bool] = lambda data: True) -> None:
        """Block until an event of this name came, from the connection's beginning on, whose data `accept` likes."""
        while True:
            message = self._events.popleft() if self._events else self._receive()
            if message.get("event") == event and accept(message.get("data", {})):
                return

    def close(self) -> None:
        self._lines.close()
        self._sock.close()

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise RigError(f"QEMU does not answer: {error}") from error
        if not line:
            raise RigError("QEMU is gone")
        message: dict[str, Any] = json.loads(line)
        return message
