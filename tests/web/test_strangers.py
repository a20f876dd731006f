"""Who has no token holds nobody up: not by many connections, not by reading nothing, not by what it sends."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.websocket import WebSocket, websocket
from usbip_capture.server.events import PLUGGED
from usbip_capture.serving import capture_store
from usbip_capture.web import http_protocol, service, stalled
from usbip_capture.web.api import captures
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.places import Places
from usbip_capture.web.roles import LOOK

_PAGE = "/assets/uPlot.iife.min.js"  # more than a system keeps for who does not read


def _asked(made: Dashboard, path: str = "", source: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
    """A connection, and a request for `path` if there is one."""
    place = urlsplit(made.urls[0])
    sock = socket.socket()
    sock.settimeout(60)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.bind((source, 0))
    sock.connect((place.hostname, place.port))
    if path:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
    return sock


def _connections(made: Dashboard) -> int:
    return len(made._service._server.server_state.connections)


@contextmanager
def _asleep(made: Dashboard, number: int = 5) -> Iterator[None]:
    """Strangers who ask for a page, and read nothing of it."""
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(_asked(made, _PAGE, buffer=4096))
        wait_until("they are there", lambda: _connections(made) == number)
        yield


def test_who_reads_nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled, "PATIENCE", 0.2)
    monkeypatch.setattr(service, "_LOOK", 1)
    with dashboard() as (_, made), _asleep(made):
        wait_until("they have left", lambda: not _connections(made))
        assert httpx.get(f"{made.urls[0]}healthz", timeout=60).text == "ok\n"


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_descriptor_is_left_of_who_reads_nothing() -> None:
    with dashboard() as (_, made):
        before = len(os.listdir("/proc/self/fd"))
        with _asleep(made):
            made.close()
            assert not _connections(made)
        assert len(os.listdir("/proc/self/fd")) < before  # its listener is gone, too


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second address of this machine")
def test_many_connections_of_one_address_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_MOST", 8)
    with ExitStack() as stack:
        server, made = stack.enter_context(dashboard())
        client = stack.enter_context(asking(made, LOOK))
        wanted = {"accept": "text/event-stream"}
        answer = stack.enter_context(client.stream("GET", "/api/v1/events", headers=wanted))
        figures = stack.enter_context(
            websocket(made.urls[0], "/api/v1/figures", client.headers["authorization"].partition(" ")[2])
        )
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        other = stack.enter_context(_asked(made, source="127.0.0.2"))
        flood = [stack.enter_context(_asked(made)) for _ in range(30)]
        assert flood[0].recv(1) == b""  # the one that waits longest
        wait_until("the others have left", lambda: _connections(made) <= 8)
        other.sendall(f"GET /healthz HTTP/1.1\r\nHost: {urlsplit(made.urls[0]).netloc}\r\n\r\n".encode())
        assert b"200 OK" in other.recv(100)
        server.events.emit(PLUGGED, text="it goes on")
        assert any("it goes on" in line for line in lines)
        assert figures.receive()["type"] == "history"


def test_an_answer_is_sent_at_once() -> None:
    """Its body does not wait until the client has acknowledged its head, which may take 40 ms."""
    with dashboard() as (_, made), asking(made, LOOK) as client:
        assert client.get("/healthz").status_code == 200
        (connection,) = made._service._server.server_state.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_is_compressed_is_not_taken() -> None:
    """A few bytes would become as many as they like."""
    with dashboard() as (_, made):
        token = made.side.tokens.add("browser", LOOK)
        offered = {"Authorization": f"Bearer {token}", "Sec-WebSocket-Extensions": "permessage-deflate"}
        figures = WebSocket(made.urls[0], "/api/v1/figures", offered)
        assert figures.accepted.extensions == []
        figures.close()


def test_places_are_taken_by_as_many_as_there_are() -> None:
    places = Places()
    start = threading.Barrier(32)
    taken: list[bool] = []

    def take() -> None:
        start.wait(60)
        taken.append(places.take(5))

    threads = [threading.Thread(target=take) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(taken) == places.taken == 5
    places.leave()
    assert places.take(5)


def test_a_stream_has_its_place_before_it_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(captures, "MAX_STREAMS", 2)
    with dashboard(captures=tmp_path) as (_, made), asking(made, LOOK) as client, ExitStack() as stack:
        url = "/api/v1/captures/stream"
        for _ in range(2):
            assert stack.enter_context(client.stream("GET", url)).status_code == 200
        assert client.get(url).status_code == 409
        stack.close()
        wait_until("they have ended", lambda: not made.side.streams.taken)
        assert client.get(f"{url}?filter=bulk%20and").status_code == 400
        assert not made.side.streams.taken


def test_half_a_character_of_a_device_is_shown_with_the_events() -> None:
    with dashboard() as (server, made), asking(made, LOOK) as client:
        server.events.emit(PLUGGED, device="bad \ud800 device")
        found = client.get("/api/v1/events").json()["events"]
        assert found[-1]["device"] == "bad \ud800 device"


@pytest.mark.parametrize("number", ["0" * 20 + "9" * 5000, "9" * 5000, "\u0663", "0000000019", "0" * 9 + "19", "-1"])
def test_a_number_is_looked_at_whole(number: str, tmp_path: Path) -> None:
    with dashboard(captures=tmp_path) as (_, made), asking(made) as client:
        capture = client.post("/api/v1/captures", json={}).json()["capture"]["id"]
        answer = client.get(f"/api/v1/captures/{capture}/download", params={"part": number})
        assert answer.status_code == 404
        wanted = 200 if len(number) < 20 and number.isascii() and number.isdigit() else 400
        assert client.get("/api/v1/events", params={"after": number}).status_code == wanted


def test_too_many_captures_are_a_conflict_for_scripts_of_others_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capture_store, "MAX_RUNNING", 0)
    with dashboard(captures=tmp_path) as (_, made), asking(made) as client:
        for path in ("/api/v1/captures", "/api/capture/start"):
            answer = client.post(path, json={})
            assert (answer.status_code, "at most 0" in answer.json()["error"]) == (409, True)
