"""Who is signed out loses what goes on: streams and WebSockets that had begun before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.test_devices_api import READ, attach
from tests.web.websocket import WebSocket
from usbip_capture.errors import UsbipError
from usbip_capture.server.events import RESET
from usbip_capture.web import lasting
from usbip_capture.web.lasting import done_while_allowed, parts_while_allowed
from usbip_capture.web.roles import Refused


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "RECHECK", 0.02)


def test_a_stream_of_events_ends_with_its_token() -> None:
    with dashboard() as (server, made), asking(made, "look") as client:
        with client.stream("GET", "/api/v1/events?last=1", headers={"accept": "text/event-stream"}) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith(": the events")
            made.side.tokens.remove("test-look")
            server.events.emit(RESET, text="before it is looked at")
            for _ in lines:  # until it ends
                server.events.emit(RESET, text="again")
        assert client.get("/api/v1/me").status_code == 401


def test_a_stream_in_which_nothing_happens_ends_with_its_token(tmp_path: Path) -> None:
    with dashboard(captures=tmp_path) as (_, made), asking(made, "look") as client:
        with (
            client.stream("GET", "/api/v1/captures/stream") as capture,
            client.stream("GET", "/api/v1/events", headers={"accept": "text/event-stream"}) as events,
        ):
            lines = events.iter_lines()
            assert next(lines).startswith(":")
            made.side.tokens.remove("test-look")
            assert not any(lines)
            capture.read()
        wait_until("its place is free", lambda: not made.side.streams.taken)


def test_a_capture_that_is_streamed_ends_with_its_token() -> None:
    with dashboard() as (server, made), asking(made, "look") as client:
        device = attach(server)
        with client.stream("GET", "/api/v1/captures/stream") as answer:
            parts = answer.iter_raw()
            assert next(parts)
            made.side.tokens.remove("test-look")
            ended = threading.Event()

            def transfer() -> None:
                while not ended.wait(0.01):
                    device.run(READ, 20.0)

            thread = threading.Thread(target=transfer)
            thread.start()
            try:
                for _ in parts:  # until it ends
                    pass
            finally:
                ended.set()
                thread.join()
        device.close()


def test_a_websocket_ends_with_its_token() -> None:
    with dashboard() as (_, made), asking(made, "look") as client:
        figures = WebSocket(made.urls[0], "/api/v1/figures", {"authorization": client.headers["authorization"]})
        assert figures.receive()["type"] == "history"
        made.side.tokens.remove("test-look")
        while figures.receive() is not None:
            pass
        figures.close()


def test_a_stream_that_ends_early_ends_what_makes_it() -> None:
    ended = []

    async def parts() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                await asyncio.sleep(0.001)
                yield number
        finally:
            ended.append(True)

    def check() -> None:
        raise Refused("no")

    async def run() -> int:
        return len([part async for part in parts_while_allowed(parts(), check)])

    assert asyncio.run(run()) < 1000
    assert ended


def test_what_serves_a_websocket_is_cancelled_and_its_errors_are_raised() -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def wrong() -> None:
        raise ValueError("wrong")

    async def fine() -> None:
        await asyncio.sleep(0)

    def check() -> None:
        if not ended:
            raise UsbipError("no")

    async def cancelled() -> None:
        task = asyncio.ensure_future(done_while_allowed(endless(), lambda: None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert str(asyncio.run(done_while_allowed(endless(), check))) == "no"
    assert asyncio.run(done_while_allowed(fine(), check)) is None
    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(done_while_allowed(wrong(), check))
    asyncio.run(cancelled())
    assert len(ended) == 2


def test_who_is_still_allowed_keeps_it() -> None:
    wanted = {"accept": "text/event-stream"}
    with (
        dashboard() as (server, made),
        asking(made, "look") as client,
        client.stream("GET", "/api/v1/events", headers=wanted) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        for number in range(20):
            server.events.emit(RESET, text=f"number {number}")
            assert any(f"number {number}" in line for line in iter(lambda: next(lines), None))
