"""The service answers while it runs, and is gone when it was closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from usbip_capture.errors import CannotListen
from usbip_capture.web.app import make_app
from usbip_capture.web.roles import ADMINISTER, User
from usbip_capture.web.service import WebService
from usbip_capture.web.side import WebSide


def _app() -> Any:
    return make_app(WebSide(cast("Any", None)), lambda request: User("test", ADMINISTER))


def test_it_answers_until_it_is_closed() -> None:
    service = WebService(_app(), [("127.0.0.1", 0)])
    host, port = service.addresses[0]
    assert httpx.get(f"http://{host}:{port}/healthz", timeout=30).text == "ok\n"
    service.close()
    service.close()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{host}:{port}/healthz", timeout=30)


def test_a_port_that_is_taken_is_a_sentence() -> None:
    service = WebService(_app(), [("127.0.0.1", 0)])
    try:
        with pytest.raises(CannotListen):
            WebService(_app(), [service.addresses[0]])
    finally:
        service.close()


def test_what_fails_in_a_stream_or_a_websocket_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def parts() -> AsyncIterator[str]:
        yield "begun"
        raise ValueError("of a stream")

    async def stream(request: Request) -> Response:
        return StreamingResponse(parts())

    async def socket(websocket: WebSocket) -> None:
        raise ValueError("of a WebSocket")

    app = _app()
    app.router.routes += [Route("/stream", stream), WebSocketRoute("/socket", socket)]
    service = WebService(app, [("127.0.0.1", 0)])
    try:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{service.urls[0]}stream", timeout=30)
        upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
        headers = {**upgrade, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "origin": service.urls[0][:-1]}
        assert httpx.get(f"{service.urls[0]}socket", headers=headers, timeout=30).status_code == 500
    finally:
        service.close()
    assert "of a stream" in caplog.text
    assert "of a WebSocket" in caplog.text
    assert {record.name for record in caplog.records} == {"usbip_capture.web.app"}
