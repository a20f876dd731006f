"""The service answers while it runs, and is gone when it was closed."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest

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
