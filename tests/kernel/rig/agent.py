"""Runs shell commands in a guest, through the agent that its initramfs starts: one connection for each."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

from tests.kernel.rig.host import RigError

_TRAILER = re.compile(rb"\n\x01rc=(\d+)\n$")
_TRAILER_SIZE = 32


@dataclass(slots=True)
class Result:
    """What a command printed, standard error included, and how it ended."""

    stdout: bytes
    returncode: int

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


def run_in_guest(port: int, command: str, stdin: bytes = b"", timeout: float = 60.0, *, check: bool = True) -> Result:
    """Run one line of shell in the guest whose agent answers at `port` of this machine.

    Raises RigError after `timeout` seconds and, with `check`, for an exit status other than 0; OSError when there is
    no guest.
    """
    if "\n" in command:
        raise ValueError("the agent takes one line")
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(command.encode() + b"\n" + stdin)
        sock.shutdown(socket.SHUT_WR)
        result = _receive(sock, command, time.monotonic() + timeout)
    if check and result.returncode:
        raise RigError(f"{command}: exit {result.returncode}: {result.text}")
    return result


def _receive(sock: socket.socket, command: str, deadline: float) -> Result:
    # Up to the trailer, not to the end: what the command leaves running may hold the connection.
    output = bytearray()
    while not (done := _TRAILER.search(output[-_TRAILER_SIZE:])):
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            chunk = sock.recv(1 << 16)
        except TimeoutError:
            raise RigError(f"timed out: {command}: {bytes(output[-500:])!r}") from None
        if not chunk:
            raise RigError(f"no answer from the guest: {command}")
        output += chunk
    return Result(bytes(output[: -len(done[0])]), int(done[1]))
