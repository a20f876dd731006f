"""Captures: begun, stopped, read and deleted; streamed, and looked into while they run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.records.usbmon import HEADER_SIZE
from usbip_capture.serving.capture_store import CaptureStore
from usbip_capture.serving.session_capture import DeviceChoice, SessionCapture
from usbip_capture.serving.sessions import Sessions
from usbip_capture.serving.stored_capture import RUNNING, CaptureFacts
from usbip_capture.serving.stored_sinks import whole_blocks
from usbip_capture.web.api.devices import by
from usbip_capture.web.capture_data import capture_data
from usbip_capture.web.filters import parsed_filter
from usbip_capture.web.live_view import live_view
from usbip_capture.web.outlet import Outlet
from usbip_capture.web.places import Places
from usbip_capture.web.roles import LOOK, OPERATE
from usbip_capture.web.routing import Call, Conflict, NotFound, NotHere, api, live
from usbip_capture.web.side import WebSide

_PCAPNG = "application/x-pcapng"
#: Streams at a time, bytes of what each has not written yet, devices that one request names.
MAX_STREAMS, _QUEUE_BYTES, _MAX_DEVICES = 16, 16 << 20, 256
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
        _few(devices), capture_filter=_filter(call.text("filter", "")), max_bytes=call.number("max_bytes"),
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
    sessions = _sessions(call.side)
    choice = DeviceChoice(_few(call.request.query_params.getlist("device")))
    capture_filter = _filter(call.query.get("filter", ""))
    form = _Form(capture_filter, _snaplen(call.query.get("snaplen", "")), call.query.get("unlinks", "") == "1")
    if not call.side.streams.take(MAX_STREAMS):
        raise Conflict(f"at most {MAX_STREAMS} captures are streamed at a time: end another one")
    return _Stream(call.side.streams, _streamed(call.side, sessions, choice, form))


class _Stream(StreamingResponse):
    """Has one of these places until it has ended."""

    def __init__(self, places: Places, parts: AsyncIterator[bytes]) -> None:
        super().__init__(parts, media_type=_PCAPNG, headers={"cache-control": "no-store"})
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.leave()


class _Form(NamedTuple):
    """How packets are streamed: which, how many bytes of each, 0 for all, and whether unlinks are recorded, too."""

    filter: str
    snaplen: int
    unlinks: bool


async def _streamed(side: WebSide, sessions: Sessions, choice: DeviceChoice, form: _Form) -> AsyncIterator[bytes]:
    outlet = Outlet(asyncio.get_running_loop())
    writer = PcapWriter(
        outlet, snaplen=form.snaplen, queue_bytes=_QUEUE_BYTES, capture_filter=form.filter, record_unlinks=form.unlinks
    )
    capture = SessionCapture(writer, choice, side.server.address)
    try:
        await run_in_threadpool(sessions.join, capture)
        dropped = 0
        async for part in outlet.parts():
            yield part
            if writer.dropped > dropped:
                writer.comment(f"usbip-capture: {writer.dropped - dropped} packets found no room: this viewer is slow")
                dropped = writer.dropped
    finally:
        outlet.leave()
        asyncio.get_running_loop().run_in_executor(None, _end_stream, sessions, capture, writer)


def _end_stream(sessions: Sessions, capture: SessionCapture, writer: PcapWriter) -> None:
    sessions.leave(capture)
    with suppress(CaptureError):  # its client has left
        writer.close()


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
    api("GET", "/captures/stream", _stream, LOOK),
    api("POST", "/captures/{id}/stop", _stop, OPERATE),
    api("DELETE", "/captures/{id}", _delete, OPERATE),
    api("GET", "/captures/{id}/download", _download, LOOK),
    live("/captures/{id}/live", live_view, LOOK),
]
