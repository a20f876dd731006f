"""Who uses a server of ours while it is watched, and what can be done about that: on a connection of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import NamedTuple

from usbip_capture.errors import UsbipError
from usbip_capture.server_stream.requests import DashboardConnection
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.servers.known import KnownDevice
from usbip_capture.system.shown import one_line

log = logging.getLogger(__name__)

#: Seconds between two looks at the clients, and after a failure.
_PERIOD, _PAUSE = 1.0, 5.0


class WatchedClient(NamedTuple):
    """number: its own at the server. busid: of the device that it has, empty if it has none."""

    number: int
    address: str
    busid: str


class ServerState:
    """Reports to `on_clients`, on a thread of its own, who is connected, each time that changes, until closed.

    What fails is logged, and tried again.
    """

    def __init__(self, dashboard: Dashboard, on_clients: Callable[[Mapping[int, WatchedClient]], None]) -> None:
        self._dashboard = dashboard
        self._on_clients = on_clients
        self._clients: dict[int, WatchedClient] | None = None
        self._commands: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._closing = False
        self._connection: DashboardConnection | None = None
        self._trouble = ""
        try:
            threading.Thread(target=self._run, name="usbip-server-state", daemon=True).start()
        except RuntimeError as error:
            log.warning("the clients of %s cannot be shown: %s", dashboard, error)

    def disconnect(self, number: int) -> None:
        """End a client; its device stays exported. Returns at once, as `reset` does: the outcome is logged."""
        self._commands.put((f"/clients/{number}/disconnect", f"client {number}"))

    def reset(self, number: int) -> None:
        """Reset the device of a client."""
        client = (self._clients or {}).get(number)
        if client is None or not client.busid:
            log.warning("client %d has no device that could be reset", number)
            return
        self._commands.put((f"/devices/{client.busid}/reset", client.busid))

    def close(self) -> None:
        """Report nothing more."""
        self._closing = True
        self._commands.put(None)

    def _run(self) -> None:
        due = 0.0
        while not self._closing:
            try:
                command = self._commands.get(timeout=max(due - time.monotonic(), 0.0))
            except Empty:
                due = time.monotonic() + (_PERIOD if self._look() else _PAUSE)
                continue
            if command is not None:
                self._command(*command)
                due = 0.0
        self._release()

    def _look(self) -> bool:
        try:
            clients = clients_of(self._connected().ask("GET", "/clients"))
        except UsbipError as error:
            self._failed(error)
            return False
        self._trouble = ""
        if clients != self._clients and not self._closing:
            self._clients = clients
            self._on_clients(clients)
        return True

    def _command(self, path: str, what: str) -> None:
        try:
            answer = self._connected().ask("POST", path, {})
        except UsbipError as error:
            log.warning("%s: %s", what, error)
            self._release()
        else:
            log.info("%s", one_line(str(answer.get("outcome", what))))

    def _connected(self) -> DashboardConnection:
        if self._connection is None:
            self._connection = DashboardConnection(self._dashboard)
        return self._connection

    def _failed(self, error: UsbipError) -> None:
        self._release()
        if str(error) != self._trouble and not self._closing:
            self._trouble = str(error)
            log.warning("the clients cannot be shown: %s", error)

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def clients_of(answer: Mapping[str, object]) -> dict[int, WatchedClient]:
    """Those in the answer to `/clients`, as far as they are understood."""
    listed = answer.get("clients")
    found = {}
    for client in listed if isinstance(listed, list) else ():
        if isinstance(client, dict) and isinstance(client.get("id"), int):
            found[client["id"]] = WatchedClient(client["id"], _text(client, "address"), _text(client, "busid"))
    return found


def exported_devices(dashboard: Dashboard) -> list[KnownDevice]:
    """What the server exports now. Raises UsbipError."""
    connection = DashboardConnection(dashboard)
    try:
        listed = connection.ask("GET", "/devices").get("devices")
    finally:
        connection.close()
    return [
        KnownDevice(
            _text(one, "busid"), _text(one, "vid_pid"), _text(one, "product"),
            serial=_text(one, "serial"), kind=_text(one, "class_name"),
        )
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and one.get("exported")
    ]  # fmt: skip


def _text(one: Mapping[str, object], key: str) -> str:
    return one_line(str(one.get(key) or ""))
