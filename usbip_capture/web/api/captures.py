"""Captures: begun, stopped, read and deleted; streamed, and looked into while they run."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from usbip_capture.errors import LocalProtocolError
from usbip_capture.records.usbmon import HEADER_SIZE
from usbip_capture.server_stream.requests import ALIVE, TIME_HEADER
from usbip_capture.serving.capture_store import CaptureStore
from usbip_capture.serving.stored_capture import RUNNING, CaptureFacts
from usbip_capture.serving.stored_sinks import whole_blocks
from usbip_capture.sessions.session_capture import DeviceChoice
from usbip_capture.sessions.sessions import Sessions
from usbip_capture.web.api.devices import by
from usbip_capture.web.capture_data import capture_data
from usbip_capture.web.filters import parsed_filter
from usbip_capture.web.live_view import live_view
from usbip_capture.web.outlet import Outlet
from usbip_capture.web.places import Places
from usbip_capture.web.roles import LOOK, OPERATE
from usbip_capture.web.routing import Call, Conflict, NotFound, NotHere, api, live
from usbip_capture.web.shared_streams import LINGER, Streamed
from usbip_capture.web.side import WebSide

_PCAPNG = "application/x-pcapng"
#: Streams at a time, devices that one request names.
MAX_STREAMS, _MAX_DEVICES = 64, 256
#: Of the number of a part.
_MAX_DIGITS = 9
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.-]+")


def _captures(call: Call) -> object:
    base = str(call.request.base_url)
    return {"captures": [capture_data(facts, base) for facts in store_of(call).captures]}


def _start(call: Call) -> object:
    devices = call.body.get("devices", [])
    if not isinstance(devices, list) or not all(isinstance(device, str) for device in devices):
        raise LocalProtocolError('devices must be a list of texts, such as ["1-1.4"]; an empty one means all')
    facts = store_of(call).start(
        _few(devices), hindsight="hindsight" not in call.body or call.flag("hindsight"),
        capture_filter=_filter(call.text("filter", "")), max_bytes=call.number("max_bytes"),
        files=call.number("files"), name=call.text("name", ""), by=by(call),
    )  # fmt: skip
    what = ", ".join(facts.devices) or "all devices"
    outcome = f"the capture of {what} has begun"
    return {"ok": True, "outcome": outcome, "capture": capture_data(facts, str(call.request.base_url))}


def _stop(call: Call) -> object:
    facts = _found(call)
    if facts.state != RUNNING:
        raise Conflict(f"{facts.name} does not run any more")
    ended = store_of(call).stop(facts.id, by(call)) or facts
    outcome = f"{ended.name} is stopped: {ended.packets} packets, {ended.bytes} bytes"
    return {"ok": True, "outcome": outcome, "capture": capture_data(ended, str(call.request.base_url))}


def _delete(call: Call) -> object:
    facts = _found(call)
    store_of(call).delete(facts.id, by(call))
    return {"ok": True, "outcome": f"{facts.name} is deleted"}


def _download(call: Call) -> object:
    facts = _found(call)
    paths = store_of(call).files(facts.id)
    name = "-".join(filter(None, (_NOT_IN_A_NAME.sub("-", facts.name).strip("-."), facts.id)))
    part = call.query.get("part", "")
    if part:
        number = int(part) if part.isdecimal() and len(part) <= _MAX_DIGITS else 0
        if not 0 < number <= len(paths):
            raise NotFound(f"part must be from 1 to {len(paths)}, not {part!r}")
        paths, name = [paths[number - 1]], f"{name}-{number}"
    headers = {"content-disposition": f'attachment; filename="{name}.pcapng"', "cache-control": "no-store"}
    return StreamingResponse(contents(paths), media_type=_PCAPNG, headers=headers)


def contents(paths: Sequence[str]) -> Iterator[bytes]:
    """All that is written in these files so far, in their order."""
    for path in paths:
        yield from whole_blocks(path)


def _stream(call: Call) -> Response:
    sessions, query = _sessions(call.side), call.query
    wanted = Streamed(
        tuple(DeviceChoice(_few(call.request.query_params.getlist("device"))).texts),
        _filter(query.get("filter", "")),
        _snaplen(query.get("snaplen", "")),
        unlinks=query.get("unlinks", "") == "1",
        events=query.get("events", "") == "1",
        hindsight=query.get("hindsight") != "0",
    )
    if not call.side.streams.take(MAX_STREAMS):
        raise Conflict(f"at most {MAX_STREAMS} captures are streamed at a time: end another one")
    alive = ALIVE if query.get("alive", "") == "1" else 0.0
    return _Stream(call.side.streams, _streamed(call.side, sessions, wanted, alive))


class _Stream(StreamingResponse):
    """Has one of these places until it has ended. Its head has the time of this machine, in nanoseconds since 1970."""

    def __init__(self, places: Places, parts: AsyncIterator[bytes]) -> None:
        headers = {"cache-control": "no-store", TIME_HEADER: str(time.time_ns())}
        super().__init__(parts, media_type=_PCAPNG, headers=headers)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.leave()


async def _streamed(side: WebSide, sessions: Sessions, wanted: Streamed, alive: float) -> AsyncIterator[bytes]:
    shared, loop = side.shared, asyncio.get_running_loop()
    await asyncio.sleep(side.joins.seconds(loop.time()))
    outlet = Outlet(loop, alive)
    joining: asyncio.Future[None] | None = None
    try:
        if not shared.join_known(sessions, wanted, outlet):
            joining = asyncio.ensure_future(run_in_threadpool(shared.join, sessions, wanted, outlet))
            joining.add_done_callback(lambda done: outlet.end() if not done.cancelled() and done.exception() else None)
        async for part in outlet.parts():
            yield part
        if joining is not None:
            await joining
    finally:
        _end(shared.leave(outlet))
        loop.call_later(LINGER, lambda: _end(shared.unseen()))


def _end(ends: Callable[[], None] | None) -> None:
    """Not on the event loop: the thread of a capture is waited for, and waking another one is not cheap."""
    if ends is not None:
        asyncio.get_running_loop().run_in_executor(None, ends)


def store_of(call: Call) -> CaptureStore:
    """Where captures are kept. Raises NotHere."""
    found = call.side.server.captures
    if found is None:
        raise NotHere("captures cannot be kept here: name a folder with captures, and start the server again")
    return found


def _sessions(side: WebSide) -> Sessions:
    found = side.server.sessions
    if found is None:
        raise NotHere("this server has no captures")
    return found


def _found(call: Call) -> CaptureFacts:
    facts = store_of(call).find(call.path["id"])
    if facts is None:
        raise NotFound("there is no such capture: it may have been deleted")
    return facts


def _filter(text: str) -> str:
    """The same, if it is one. Raises LocalProtocolError."""
    parsed_filter(text)
    return text


def _snaplen(text: str) -> int:
    """Raises LocalProtocolError."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1
    if text and (number < 0 or 0 < number < HEADER_SIZE):
        raise LocalProtocolError(f"snaplen must be a number of bytes from {HEADER_SIZE} on, or 0, not {text!r}")
    return max(number, 0)


def _few(devices: Sequence[str]) -> Sequence[str]:
    if len(devices) > _MAX_DEVICES:
        raise LocalProtocolError(f"at most {_MAX_DEVICES} devices can be named; none means all")
    return devices


ROUTES: list[BaseRoute] = [
    api("GET", "/captures", _captures, LOOK),
    api("POST", "/captures", _start, OPERATE),
    api("GET", "/captures/stream", _stream, LOOK, at_once=True),
    api("POST", "/captures/{id}/stop", _stop, OPERATE),
    api("DELETE", "/captures/{id}", _delete, OPERATE),
    api("GET", "/captures/{id}/download", _download, LOOK),
    live("/captures/{id}/live", live_view, LOOK),
]
