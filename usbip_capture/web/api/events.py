"""What happens at the server, and has happened: as a list, as lines, and as a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from usbip_capture.errors import LocalProtocolError
from usbip_capture.server.described import sentence
from usbip_capture.server.events import RING, Event, Events
from usbip_capture.syslog.severity import SEVERITIES
from usbip_capture.web.event_data import event_data
from usbip_capture.web.event_feed import EventFeed
from usbip_capture.web.roles import LOOK
from usbip_capture.web.routing import Call, api

_JSON, _LINES, _STREAM = "application/json", "application/x-ndjson", "text/event-stream"
#: Seconds between two comments in a stream, so that neither side takes the other one for gone.
_ALIVE = 15.0
_MAX_NUMBER, _MAX_DIGITS = 1 << 53, 20


class EventFilter:
    """What of the events is asked for. Raises LocalProtocolError.

    kind: one, or several with commas. severity: this and what is worse. q: words that all are in the sentence or in
    what the event has, in any case.
    """

    def __init__(self, kind: str = "", severity: str = "", q: str = "") -> None:
        if severity and severity not in SEVERITIES:
            raise LocalProtocolError(f"{severity!r} is not a severity: {', '.join(SEVERITIES)}")
        self._kinds = frozenset(part.strip() for part in kind.split(",") if part.strip())
        self._severity = SEVERITIES.index(severity) if severity else len(SEVERITIES)
        self._words = q.lower().split()

    def passes(self, event: Event) -> bool:
        """Whether it is one of these."""
        if (self._kinds and event.kind not in self._kinds) or event.severity > self._severity:
            return False
        if not self._words:
            return True
        text = f"{sentence(event)} {event.kind} {SEVERITIES[event.severity]}".lower()
        return all(word in text for word in self._words)


def _events(call: Call) -> object:
    """The events, in the form that was asked for."""
    query = call.query
    wanted = EventFilter(query.get("kind", ""), query.get("severity", ""), query.get("q", ""))
    after, last = _number(query.get("after", ""), "after", 0), _number(query.get("last", ""), "last", RING)
    events = call.side.server.events
    form = _form(call.request.headers.get("accept", ""))
    if form == _STREAM:
        return _stream(call, wanted, after, last)
    found = [event for event in events.after(after, RING) if wanted.passes(event)]
    found = found[len(found) - min(last, len(found)) :]
    if form == _LINES:
        return Response("".join(map(_line, found)), media_type=_LINES)
    # One after the other: while all were encoded at once, no thread could do anything else.
    listed = ",".join(json.dumps(event_data(event), separators=(",", ":")) for event in found)
    return Response(f'{{"events":[{listed}],"last":{events.last}}}', media_type=_JSON)


def _stream(call: Call, wanted: EventFilter, after: int, last: int) -> Response:
    """From `after` or `last` on; Last-Event-ID, of a browser that has come back, decides over both."""
    events, feed = call.side.server.events, call.side.feed
    if feed is None:
        raise LocalProtocolError("events are not streamed here")
    given = call.request.headers.get("last-event-id", "")
    if given:
        after = _number(given, "Last-Event-ID", 0)
    elif "last" in call.query:
        after = max(after, events.last - last)
    elif "after" not in call.query:
        after = events.last
    parts = _parts(call.request, events, feed, wanted, after)
    return StreamingResponse(parts, media_type=_STREAM, headers={"cache-control": "no-store"})


async def _parts(
    request: Request, events: Events, feed: EventFeed, wanted: EventFilter, after: int
) -> AsyncIterator[str]:
    after = after if after <= events.last else 0  # its events are another server's, or were lost
    yield ": the events of this server\n\n"
    while True:
        found = await feed.after(after, _ALIVE)
        if not found and feed.closed:
            return
        yield _messages(found, wanted, after) or ": nothing new\n\n"
        after = found[-1].number if found else after


def _messages(found: Iterable[Event], wanted: EventFilter, after: int) -> str:
    """Ref: HTML Living Standard, 9.2 (server-sent events)"""
    parts = []
    for event in found:
        if event.number > after + 1 and after:
            parts.append(f": {event.number - after - 1} events are left out: the server does not remember them\n\n")
        after = event.number
        if wanted.passes(event):
            parts.append(f"id: {event.number}\ndata: {json.dumps(event_data(event))}\n\n")
    return "".join(parts)


def _line(event: Event) -> str:
    return json.dumps(event_data(event)) + "\n"


def _form(accept: str) -> str:
    """Which of the three is asked for; JSON unless another one is named."""
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return next((form for form in (_STREAM, _LINES) if form in named), _JSON)


def _number(text: str, name: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= _MAX_NUMBER):
        raise LocalProtocolError(f"{name} must be a whole number from 0 to {_MAX_NUMBER}, not {text!r}")
    return int(text)


ROUTES: list[BaseRoute] = [api("GET", "/events", _events, LOOK)]
