"""The requests that the front end of `usbip-esp32p4` makes, by their paths, and what it reads of the answers.

Ref: github.com/DatanoiseTV/usbip-esp32p4 a6e0459, components/webui/frontend/app.js
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx

from tests.web.websocket import WebSocket, websocket

#: What a card, a row of the tree, and a line of the log read of the message.
_CARD = (
    "idx",
    "path",
    "vid",
    "pid",
    "speed",
    "state",
    "client_ip",
    "mfr",
    "prod",
    "bi",
    "bo",
    "uok",
    "ufl",
    "det",
    "icl",
)
_LOG = ("ts", "level", "msg")


class SeedFrontEnd:
    """Signed in by HTTP Basic: any name, and a token as the password."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._basic = "Basic " + base64.b64encode(f"admin:{token}".encode()).decode()
        self._client = httpx.Client(
            base_url=self.url, headers={"Authorization": self._basic}, timeout=60, trust_env=False
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        """`fetch(path).then(r => r.json())`."""
        return self._client.get(path).json()

    def post(self, path: str, body: object = None) -> Any:
        """As its buttons do without a body, and its forms with one."""
        return (self._client.post(path) if body is None else self._client.post(path, json=body)).json()

    def download(self) -> httpx.Response:
        """`window.location.href = '/api/capture/download'`."""
        return self._client.get("/api/capture/download")

    def live(self) -> AbstractContextManager[WebSocket]:
        """`new WebSocket(proto + '//' + location.host + '/ws')`."""
        return websocket(self.url, "/ws", "", Authorization=self._basic, Origin=self.url)

    def stats(self, socket: WebSocket, wanted: Callable[[Any], bool] = lambda message: True) -> Any:
        """The next message that is wanted, read as `handleStats` does."""
        while True:
            message = socket.receive()
            assert message["type"] == "stats"
            for key in ("free_heap", "free_internal", "uptime_sec", "bw_in", "bw_out"):
                assert isinstance(message[key], int), key
            assert all(set(device) == set(_CARD) for device in message["devices"])
            assert all(tuple(entry) == _LOG for entry in message["logs"])
            assert len(message["logs"]) <= 10
            if wanted(message):
                return message

    def detail(self, idx: int) -> Any:
        """The page of a device."""
        return self.get(f"/api/devices/detail?idx={idx}")

    def act(self, action: str, idx: int) -> Any:
        """A button of that page: reset, disconnect, export."""
        return self.post(f"/api/devices/{action}?idx={idx}")

    def save_network(self, **changed: object) -> Any:
        """The form, as it was filled in, with what was changed."""
        form = self.get("/api/settings/network")
        form["dhcp"] = "true" if form["dhcp"] else "false"
        return self.post("/api/settings/network", {**form, **changed})


def address(number: int) -> str:
    """An IPv4 address of a message, as `ipToStr` shows it."""
    return ".".join(str(number >> shift & 255) for shift in (0, 8, 16, 24))
