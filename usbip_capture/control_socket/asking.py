"""The other end: which servers of this user run, and asking one of them."""

from __future__ import annotations

import os
import socket
import time

from usbip_capture.control_socket.kinds import error_of
from usbip_capture.control_socket.serving import FOLDER, file_name
from usbip_capture.errors import LocalProtocolError, NotRunning, ServerLost
from usbip_capture.live import messages, registry
from usbip_capture.live.local_listener import connect_local
from usbip_capture.live.messages import Lines, Message
from usbip_capture.live.registry import Entry
from usbip_capture.system.folders import runtime_folders

#: Seconds for connecting, and for an answer: resetting a device, or switching its power, takes some.
_CONNECT_TIMEOUT, _ANSWER_TIMEOUT = 5.0, 30.0
_RECEIVE_SIZE = 64 << 10
_MAX_ANSWER = 4 << 20


class Control:
    """A running server. name: as `find` takes it. listen: where it has its clients."""

    def __init__(self, entry: Entry, name: str = "") -> None:
        self.name = name or entry.name
        self.listen = entry.listen
        self.pid = entry.pid
        self._entry = entry

    def call(self, request: str, **fields: object) -> Message:
        """The answer to a request. Raises UsbipError: of the server, or because it does not answer."""
        try:
            sock = connect_local(self._entry.address, _CONNECT_TIMEOUT)
        except (OSError, ValueError) as error:
            raise ServerLost(f"the server {self.name} cannot be reached: end its process, {self.pid}") from error
        with sock:
            asked = {"version": messages.VERSION, "token": self._entry.token, "request": request, **fields}
            try:
                messages.send(sock, asked)
                answer = self._answer(sock)
            except OSError as error:
                raise ServerLost(
                    f"the server {self.name} does not answer: wait, or end its process, {self.pid}"
                ) from error
        if "error" in answer:
            raise error_of(messages.text(answer, "kind"), messages.text(answer, "error"))
        return answer

    def _answer(self, sock: socket.socket) -> Message:
        lines = Lines(_MAX_ANSWER)
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            data = sock.recv(_RECEIVE_SIZE)
            if not data:
                raise ServerLost(f"the server {self.name} has ended, or too many ask it: try again")
            found = lines.feed(data)
            if found:
                return found[0]


def running() -> list[Control]:
    """The servers that this user may command. Those of different folders may have one name: a number is added."""
    found: dict[str, Control] = {}
    for folder in runtime_folders():
        for entry in registry.running(os.path.join(folder, FOLDER)):
            if _is_there(entry):
                name, number = entry.name, 1
                while name in found:
                    number += 1
                    name = f"{entry.name}-{number}"
                found[name] = Control(entry, name)
    return list(found.values())


def is_running(server: Control) -> bool:
    """Whether it has not ended since it was found."""
    return any((other.pid, other.name) == (server.pid, server.name) for other in running())


def _is_there(entry: Entry) -> bool:
    """Whether it is not what a killed server has left, where the entry itself does not show it (Windows)."""
    if not entry.address.startswith("tcp:"):
        return True
    try:
        connect_local(entry.address, _CONNECT_TIMEOUT).close()
    except (OSError, ValueError):
        return False
    return True


def find(name: str = "") -> Control:
    """The server of this name, or listening there; without a name the only one.

    Raises NotRunning, LocalProtocolError.
    """
    servers = running()
    names = ", ".join(f"{server.name} ({server.listen})" if server.listen else server.name for server in servers)
    if not servers:
        raise NotRunning(f"no server of yours is running{_of_others()}: start one with `usbip-capture serve`")
    if not name:
        if len(servers) > 1:
            raise LocalProtocolError(f"{len(servers)} servers are running: name one with --server: {names}")
        return servers[0]
    for server in servers:
        if file_name(name).lower() == server.name.lower() or name == server.listen:
            return server
    raise NotRunning(f"no server called {name!r} is running: there is {names}")


def _of_others() -> str:
    for folder in runtime_folders():
        try:
            os.listdir(os.path.join(folder, FOLDER))
        except PermissionError:
            return f", and {folder} is another user's (see there with sudo)"
        except OSError:  # nobody has run one there
            pass
    return ""
