"""No route is reached without signing in, or from another site's page: all there are, also those that come later."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute

from tests.web.dashboards import asking, dashboard
from usbip_capture.web.app import _routes
from usbip_capture.web.dashboard import Dashboard

#: What everybody may have: whether it runs, the files of the pages, signing in and out, the description.
_PUBLIC = {"/healthz", "/", "/assets/{name:path}", "/api/v1/login", "/api/v1/logout", "/api/v1/openapi.json"}
_VALUES = {"busid": "1-1"}


@pytest.fixture(scope="module", name="made")
def _made() -> Iterator[Dashboard]:
    with dashboard() as (_, made):
        yield made


def _requests() -> Iterator[tuple[str, str, str]]:
    """Method, path with values, and the route."""
    for route in _routes():
        if isinstance(route, (Route, WebSocketRoute)):
            path = re.sub(r"{(\w+)(:\w+)?}", lambda match: _VALUES.get(match[1], "1"), route.path)
            methods = sorted(route.methods or ()) if isinstance(route, Route) else ["WS"]
            yield from ((method, path, route.path) for method in methods)


def _status(made: Dashboard, method: str, path: str, *headers: str) -> int:
    host = "{}:{}".format(*made.addresses[0])
    lines = [f"{'GET' if method == 'WS' else method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if method == "WS":
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                  "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]  # fmt: skip
    with socket.create_connection(made.addresses[0], timeout=60) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(sock.makefile("rb").readline().split()[1])


def test_nothing_but_what_is_public_is_answered_without_signing_in(made: Dashboard) -> None:
    origin = f"Origin: {made.urls[0].rstrip('/')}"
    seen = set()
    for method, path, route in _requests():
        status = _status(made, method, path, origin)
        assert (status in (401, 403)) is (route not in _PUBLIC), (method, route, status)
        seen.add(route)
    assert seen >= _PUBLIC


def test_no_page_of_another_site_changes_anything_or_opens_a_websocket(made: Dashboard) -> None:
    with asking(made) as client:
        right = f"Authorization: {client.headers['authorization']}"
    for method, path, route in _requests():
        if method not in ("GET", "HEAD"):
            assert _status(made, method, path, right, "Origin: http://evil.example") == 403, (method, route)


def test_no_name_that_leads_here_from_elsewhere_is_answered(made: Dashboard) -> None:
    with asking(made) as client:
        for path in ("/", "/healthz", "/metrics", "/api/v1/me"):
            assert client.get(path, headers={"host": "evil.example"}).status_code == 403


def test_who_has_no_token_cannot_hold_the_thread_pool_up(made: Dashboard) -> None:
    """Bodies that never end are read on the event loop, and have a deadline."""
    socks = [socket.create_connection(made.addresses[0], timeout=60) for _ in range(60)]
    try:
        host = "{}:{}".format(*made.addresses[0])
        for sock in socks:
            head = f"POST /api/v1/login HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            sock.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert httpx.get(f"{made.urls[0]}healthz", timeout=60).status_code == 200
        with asking(made) as client:
            assert client.get("/api/v1/me").status_code == 200
    finally:
        for sock in socks:
            sock.close()
