"""A hundred browsers at once, and some that read nothing: devices, other browsers and the end of the server go on."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from urllib.parse import urlsplit

from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.test_devices_api import attach, loop
from tests.web.websocket import WebSocket, websocket
from usbip_capture.web.roles import LOOK

#: Browsers that look at the figures; of them, those that never read; and as many event streams that nobody reads.
_BROWSERS, _ASLEEP = 100, 10


def _asleep_in_events(stack: ExitStack, url: str, token: str) -> None:
    """Asks for the stream of events, and reads nothing of it."""
    place = urlsplit(url)
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.connect((place.hostname, place.port))
    sock.sendall(
        f"GET /api/v1/events?last=10000 HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )


def test_a_hundred_browsers_of_which_some_are_asleep() -> None:
    with ExitStack() as stack:
        server, made = stack.enter_context(dashboard())
        url, token = made.urls[0], made.side.tokens.add("browser", LOOK)
        asleep: list[WebSocket] = []
        awake: list[WebSocket] = []
        for number in range(_BROWSERS):
            sleeps = number < _ASLEEP
            path = "/api/v1/figures"
            browser = stack.enter_context(websocket(url, path, token, buffer=4096 if sleeps else 0))
            (asleep if sleeps else awake).append(browser)
        for _ in range(_ASLEEP):
            _asleep_in_events(stack, url, token)
        wait_until("all are there", lambda: len(made.side.live._listeners) == _BROWSERS, 60)

        device = attach(server)
        for number in range(200):
            loop(device, bytes([number]) * 64)
        ask = stack.enter_context(asking(made))
        assert ask.get("/api/v1/overview").json()["devices"]["in_use"] == 1
        assert ask.post("/api/v1/devices/1-1/disconnect").json()["ok"] is True
        for browser in awake:  # each learns of it
            found = browser.receive()
            assert found["type"] == "history"
            while found["type"] == "history" or found["devices"]["1-1"]["urbs"] < 401:
                found = browser.receive()
        device.close()
        threads = threading.active_count()
        made.close()
        assert threading.active_count() <= threads
        for browser in awake:
            while browser.receive() is not None:
                pass
        assert not made.side.live._listeners
