"""What does not get through: names that lead here from elsewhere, pages of other sites, and who never asks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.web.dashboards import asking, browser, dashboard
from usbip_capture.tls.certificates import fingerprint
from usbip_capture.web import http_protocol
from usbip_capture.web.guard import Guard, host_name, is_same
from usbip_capture.web.service import WebService


def _done(request: Request) -> Response:
    return PlainTextResponse("done")


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("open")
    await websocket.close()


@pytest.fixture(scope="module", name="guarded")
def _shared() -> Iterator[str]:
    with _guarded() as where:
        yield where


@contextmanager
def _guarded() -> Iterator[str]:
    """HOST:PORT of a small application behind the guard."""
    routes = [Route("/", _done, methods=["GET", "POST"]), WebSocketRoute("/ws", _echo)]
    service = WebService(
        Starlette(routes=routes, middleware=[Middleware(Guard, names=["Pi.example.org"])]), [("127.0.0.1", 0)]
    )
    try:
        yield "{}:{}".format(*service.addresses[0])
    finally:
        service.close()


def _exchange(where: str, head: list[str]) -> str:
    """The status of the answer to this request."""
    host, _, port = where.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall("\r\n".join([*head, "", ""]).encode())
        return sock.makefile("rb").readline().split()[1].decode()


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:1", "200"), ("localhost", "200"), ("[::1]:8080", "200"), ("192.0.2.1", "200"),
     ("LOCALHOST.:80", "200"), ("pi.example.org", "200"), ("evil.example", "403"), ("evil.example:8080", "403"),
     ("localhost.evil.example", "403"),
     ("127.0.0.1.evil.example", "403"), ("", "403"), ("user@localhost", "403"), ("localhost:x", "403"),
     ("localhost/x", "403"), ("[::1", "403")],
)  # fmt: skip
def test_only_our_own_names_are_answered(guarded: str, host: str, status: str) -> None:
    assert _exchange(guarded, ["GET / HTTP/1.1", f"Host: {host}"]) == status


@pytest.mark.parametrize(
    ("origin", "passes"),
    [("http://{}", True), ("https://{}", True), ("http://evil.example", False), ("null", False),
     ("http://localhost", False), ("http://127.0.0.1:1", False), ("file://", False),
     ("http://{}.evil.example", False), ("http://x@{}", False), ("", False)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["POST", "WebSocket"])
def test_another_sites_page_changes_nothing_and_hears_nothing(
    guarded: str, kind: str, origin: str, passes: bool
) -> None:
    head = [f"Host: {guarded}", f"Origin: {origin.format(guarded)}"]
    if kind == "POST":
        expected = "200" if passes else "403"
        assert _exchange(guarded, ["POST / HTTP/1.1", *head, "Content-Length: 0"]) == expected
    else:
        expected = "101" if passes else "403"
        assert _exchange(guarded, ["GET /ws HTTP/1.1", *head, *_UPGRADE]) == expected


_UPGRADE = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "status"),
    [([], "200"), (["Cookie: a=b"], "403"), (["Cookie: a=b", "Authorization: Bearer x"], "200"),
     (["Sec-Fetch-Site: cross-site"], "403"), (["Sec-Fetch-Site: same-site"], "403"),
     (["Sec-Fetch-Site: same-origin"], "200"), (["Origin: http://a", "Origin: http://a"], "403")],
)  # fmt: skip
def test_programs_need_no_origin_and_browsers_do(guarded: str, headers: list[str], status: str) -> None:
    assert _exchange(guarded, ["POST / HTTP/1.1", f"Host: {guarded}", *headers, "Content-Length: 0"]) == status


def test_within_tls_a_page_without_it_is_another_sites() -> None:
    assert is_same("https://pi", "pi", secure=True)
    assert is_same("https://pi:443", "PI", secure=True)
    assert is_same("https://[::1]:8443", "[::1]:8443", secure=True)
    assert not is_same("http://pi", "pi", secure=True)
    assert not is_same("https://pi:1", "pi", secure=True)
    assert not is_same("https://pi:x", "pi:x", secure=True)
    assert host_name("a b") == ""


def test_every_answer_forbids_what_a_hostile_text_could_do() -> None:
    with dashboard() as (_, made), browser(made) as page:
        for path, status in (
            ("/", None),
            ("/assets/nothing", 404),
            ("/api/v1/me", 401),
            ("/nothing", 404),
            ("/healthz", 200),
        ):
            answer = page.get(path)
            assert status in (None, answer.status_code)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert page.get("/api/v1/me").headers["cache-control"] == "no-store"
        assert page.get("/api/v1/nothing").json()["ok"] is False
        assert page.get(made.link).headers["cache-control"] == "no-store"


def test_within_tls_the_certificate_is_the_servers_and_the_cookie_stays_within() -> None:
    with dashboard(web_tls=True, tls="127.0.0.1:0") as (server, made):
        assert made.urls[0].startswith("https://")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with browser(made, verify=context) as page:
            answer = page.get(made.link)
            assert "secure" in answer.headers["set-cookie"].lower()
            assert page.get("/api/v1/me").json()["name"] == "admin"
        with socket.create_connection(made.addresses[0], timeout=60) as plain, context.wrap_socket(plain) as within:
            shown = within.getpeercert(binary_form=True)
        assert shown is not None
        assert server.tls is not None
        assert fingerprint(shown) == server.tls.fingerprint


def test_beyond_this_machine_without_tls_it_warns_that_tokens_travel_in_the_clear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with dashboard(web="*:0") as (_, made):
        assert made.urls[0].startswith("http://127.0.0.1:")
    assert "in the clear" in caplog.text
    caplog.clear()
    with dashboard():
        pass
    assert "in the clear" not in caplog.text


def test_who_does_not_ask_in_time_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 0.2)
    with _guarded() as where:
        host, _, port = where.partition(":")
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: "):
            with socket.create_connection((host, int(port)), timeout=60) as sock:
                sock.sendall(sent)
                assert sock.recv(100) == b""
        request = f"GET / HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
        monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 60.0)
        with socket.create_connection((host, int(port)), timeout=60) as sock, sock.makefile("rb") as answers:
            sock.sendall(request)
            assert b"200" in answers.readline()
            while answers.readline().strip():
                pass
            assert answers.read(4) == b"done"
            monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 0.2)
            sock.sendall(request[:10])  # and never the rest of the second one
            assert answers.read() == b""


def test_what_is_too_long_is_refused() -> None:
    with dashboard() as (_, made), asking(made) as client:
        assert client.post("/api/v1/login", json={"token": "x" * 70_000}).status_code == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 10_000])
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with dashboard() as (_, made), asking(made) as client:
        answer = client.post("/api/v1/login", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert client.post("/api/v1/login", content=b"token=x").status_code == 400


def test_a_name_that_was_added_is_ours() -> None:
    with dashboard(web_host=["pi.example.org"]) as (_, made):
        for host, status in (("pi.example.org:1", 200), ("other.example.org", 403), (socket.gethostname(), 200)):
            assert httpx.get(f"{made.urls[0]}healthz", headers={"host": host}, timeout=60).status_code == status
