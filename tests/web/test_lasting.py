"""What lasts ends when the token is removed by which it was begun."""

from __future__ import annotations

import threading

import httpx
import pytest

from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_devices_api import READ, attach
from tests.web.websocket import websocket
from usbip_capture.server.events import RESET
from usbip_capture.web import lasting
from usbip_capture.web.roles import LOOK


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "CHECK_EVERY", 0.1)


def test_a_web_socket_ends_with_its_token() -> None:
    with dashboard() as (_, made):
        token = made.side.tokens.add("browser", LOOK)
        with websocket(made.urls[0], "/api/v1/figures", token) as browser:
            assert [browser.receive()["type"] for _ in range(3)] == ["history", "figures", "figures"]
            made.side.tokens.remove("browser")
            while browser.receive() is not None:
                pass
        wait_until("nobody listens any more", lambda: not made.side.live._listeners)


@pytest.mark.parametrize("path", ["events", "captures/stream"])
def test_a_stream_ends_with_its_token(path: str) -> None:
    with dashboard() as (server, made):
        headers = {"authorization": f"Bearer {made.side.tokens.add('browser', LOOK)}", "accept": "text/event-stream"}
        device = attach(server)
        url, ended = f"{made.urls[0]}api/v1/{path}", threading.Event()

        def happening() -> None:
            """What is streamed, again and again."""
            while not ended.wait(0.05):
                server.events.emit(RESET, busid="1-1")
                device.run(READ, 20.0)

        thread = threading.Thread(target=happening)
        with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as answer:
            parts = answer.iter_raw()
            assert next(parts)
            made.side.tokens.remove("browser")
            thread.start()
            try:
                for _ in parts:
                    pass
            finally:
                ended.set()
                thread.join()
        device.close()
