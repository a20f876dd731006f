"""The toolbar's list of the clients of a relay, or of a server that is joined."""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.extcap.controls import ADD, CLIENTS, DROP, ENABLE, NO_CLIENT, REMOVE, RESET

# control, command, text; whether it went out
Send = Callable[[int, int, str], bool]


class ClientList:
    """What is shown of the clients, and which one is chosen.

    relaying: there is such a list at all. resetting: their devices can be reset. hint: how to attach,
    empty while anybody is there.
    """

    def __init__(self, send: Send) -> None:
        self.relaying = False
        self.resetting = False
        self.hint = ""
        self._send = send
        self._clients: dict[int, str] = {}
        self._shown: dict[int, str] | None = None
        self._chosen = NO_CLIENT

    def update(self, clients: dict[int, str], hint: str) -> None:
        """These are connected now: what to show of each, by its number."""
        self._clients = clients
        self.hint = "" if clients else hint

    def choose(self, value: str) -> None:
        """A person has chosen an item."""
        self._chosen = value

    def chosen(self) -> int | None:
        """Number of the client that is meant: the chosen one, or the only one."""
        if len(self._clients) == 1:
            return next(iter(self._clients))
        return next((number for number in self._clients if str(number) == self._chosen), None)

    def show(self) -> None:
        """Bring the list up to date, if somebody sees it."""
        clients = dict(self._clients)
        if not self.relaying or clients == self._shown:
            return
        if not self._send(CLIENTS, REMOVE, ""):
            return
        if self._shown is None:
            self._send(CLIENTS, ENABLE, "")
            self._send(DROP, ENABLE, "")
            if self.resetting:
                self._send(RESET, ENABLE, "")
        items = dict(clients) or {int(NO_CLIENT): "(no client)"}
        if len(clients) > 1:
            items = {int(NO_CLIENT): "(choose a client)", **items}
        for number, text in items.items():
            self._send(CLIENTS, ADD, f"{number}\0{text}")
        if self._chosen not in map(str, clients):
            self._chosen = NO_CLIENT
        self._shown = clients
