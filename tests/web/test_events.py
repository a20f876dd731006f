"""Events, as a list, as lines and as a stream; and over a restart."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_until
from tests.web.dashboards import asking, browser, dashboard
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.listening import Peer
from usbip_capture.server.described import as_data, from_data
from usbip_capture.server.events import LOST, REFUSED, RESET, RING, STARTED, Event, Events
from usbip_capture.serving.event_history import EventHistory, history_path
from usbip_capture.syslog.severity import NOTICE, WARNING

EVENTS = "/api/v1/events"


def test_events_are_listed_and_searched() -> None:
    with dashboard() as (server, made), asking(made, "look") as client:
        for number in range(30):
            server.events.emit(RESET, NOTICE, busid="1-1", text=f"Number {number}", by="user")
        server.events.emit(REFUSED, WARNING, peer=Peer("192.0.2.9", 4), text="<b>not allowed</b>", rule="deny any")
        last = server.events.last
        answer = client.get(EVENTS).json()
        assert answer["last"] == last
        newest = answer["events"][-1]
        assert newest["number"] == last
        assert isinstance(newest["time"], float)
        assert newest["text"] == "<b>not allowed</b>"
        assert newest["sentence"].startswith("client 192.0.2.9:4 is refused")

        def texts(**query: object) -> list[str]:
            return [event.get("text", "") for event in client.get(EVENTS, params=query).json()["events"]]  # type: ignore[arg-type]

        assert texts(kind=RESET, last=2) == ["Number 28", "Number 29"]
        assert texts(severity="warning", after=5) == ["<b>not allowed</b>"]
        assert texts(q="number 7") == ["Number 7", "Number 17", "Number 27"]
        assert texts(q="192.0.2.9 REFUSED") == ["<b>not allowed</b>"]
        assert texts(kind="refused,reset", last=1) == ["<b>not allowed</b>"]
        assert texts(last=0) == []
        assert texts(after=last) == []
        lines = client.get(EVENTS, params={"last": 2}, headers={"accept": "application/x-ndjson"})
        assert lines.headers["content-type"].startswith("application/x-ndjson")
        assert [json.loads(line)["number"] for line in lines.text.splitlines()] == [last - 1, last]


@pytest.mark.parametrize("query", ["after=x", "last=-1", "severity=bad", "after=99999999999999999999", "after=²"])
def test_what_cannot_be_understood_is_refused(query: str) -> None:
    with dashboard() as (_, made), asking(made) as client:
        for accept in ("application/json", "text/event-stream"):
            answer = client.get(f"{EVENTS}?{query}", headers={"accept": accept})
            assert (answer.status_code, answer.json()["ok"]) == (400, False)


def _streamed(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    number = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            number = value
        elif name == "data":
            event = json.loads(value)
            assert str(event["number"]) == number
            yield event


def test_a_stream_has_each_event_as_it_happens_and_goes_on_where_it_was_cut() -> None:
    wanted = {"accept": "text/event-stream"}
    with dashboard() as (server, made), asking(made, "look") as client:
        with client.stream("GET", EVENTS, params={"last": 1, "kind": f"{RESET},{STARTED}"}, headers=wanted) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = _streamed(answer)
            assert next(events)["kind"] == STARTED
            for number in range(3):
                server.events.emit(RESET, text=f"{number}\n\ndata: forged")
                assert next(events)["text"] == f"{number}\n\ndata: forged"
        server.events.emit(RESET, text="meanwhile")
        last = server.events.last
        wanted["last-event-id"] = str(last - 1)
        with client.stream("GET", EVENTS, headers=wanted) as answer:
            assert next(_streamed(answer))["text"] == "meanwhile"


def test_a_hundred_streams_hold_up_nobody_and_end_with_the_server() -> None:
    ended = threading.Barrier(101)

    def follow(client: httpx.Client, ready: threading.Semaphore) -> None:
        try:
            with client.stream("GET", EVENTS, headers={"accept": "text/event-stream"}) as answer:
                events = _streamed(answer)
                ready.release()
                assert next(events)["text"] == "all"
                ready.release()
                for _ in events:
                    pass
        except httpx.TransportError:  # cut at the end
            pass
        ended.wait(60)

    limits = httpx.Limits(max_connections=200)
    with dashboard() as (server, made), asking(made, limits=limits) as client:
        ready = threading.Semaphore(0)
        threads = [threading.Thread(target=follow, args=(client, ready), daemon=True) for _ in range(100)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert ready.acquire(timeout=60)
        with asking(made, "operate") as other:
            assert other.get("/api/v1/me").status_code == 200
        assert [thread.name for thread in threading.enumerate()].count("usbip-web-events") == 1
        server.events.emit(RESET, text="all")
        for _ in threads:
            assert ready.acquire(timeout=60)
    ended.wait(60)


def test_events_outlive_the_server_and_their_numbers_go_on() -> None:
    with dashboard(name="lab") as (server, made):
        server.events.emit(RESET, busid="1-1", text="before", by="user")
        last = server.events.last
        with asking(made) as client:
            before = client.get(EVENTS).json()["events"]
    assert stat.S_IMODE(os.stat(history_path("lab")).st_mode) == 0o600
    with dashboard(name="lab") as (_, made), asking(made) as client:
        after = client.get(EVENTS).json()["events"]
        assert after[: len(before)] == before
        assert after[len(before)]["number"] == last + 1
        assert [event["number"] for event in after] == list(range(1, len(after) + 1))
    with dashboard(name="other") as (_, made), asking(made) as client:
        assert "before" not in client.get(EVENTS).text
    with dashboard(name="lab", web=[]) as (server, made):  # without a dashboard nothing is kept
        assert made is None
        assert server.events.after(0, 1)[0].number == 1


def test_what_is_kept_is_bounded_and_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    path = str(tmp_path / "state" / "events")
    events = Events()
    history = EventHistory(events, "", path)
    for number in range(100):
        events.emit(RESET, text=str(number))
    events.close()
    history.close()
    with open(path, "ab") as file:
        file.write(b'{"kind": "reset"}\n[1]\n\xff\n{"time": 3}\n' + b'{"a":' * 5000 + b'\n{"kind": "res')
    again = Events()
    EventHistory(again, "", path).close()
    assert [event.text for event in again.after(0, RING)] == [str(number) for number in range(100)]
    assert again.last == 100


def test_a_history_that_cannot_be_kept_ends_nothing(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    events = Events()
    EventHistory(events, "", str(tmp_path / "file" / "events")).close()
    assert "events are not kept" in caplog.text
    events.emit(RESET)
    assert events.last == 1


def test_numbers_have_no_gaps_after_events_were_lost() -> None:
    events = Events()
    events.restore([Event(RESET, 1.0, number=3), Event(LOST, 2.0, times=5), Event(RESET, 3.0, number=9)])
    assert [event.number for event in events.after(0, RING)] == [7, 8, 9]
    events.emit(RESET)
    assert events.last == 10


def test_an_event_is_read_as_it_was_written() -> None:
    every = [
        Event(RESET, 1_700_000_000.25, NOTICE, None, "1-1", "303a:4001", "all", "text", "user", 1, 5),
        Event(REFUSED, 1.5, WARNING, Peer("192.0.2.1", 5, identity="paired:me"), times=9, number=6),
        Event(REFUSED, 1.5, WARNING, Peer(), number=7),
    ]
    assert [from_data(json.loads(json.dumps(as_data(event)))) for event in every] == every
    for wrong in (None, {}, {"time": 1}, {**as_data(every[0]), "kind": 1}, {**as_data(every[0]), "number": True}):
        with pytest.raises(LocalProtocolError):
            from_data(wrong)


def test_nobody_reads_events_without_signing_in() -> None:
    with dashboard() as (_, made), browser(made) as page:
        for accept in ("application/json", "text/event-stream", "application/x-ndjson"):
            assert page.get(EVENTS, headers={"accept": accept}).status_code == 401
        wait_until("nothing is streamed", lambda: not made.side.feed._waiting if made.side.feed else True)
