"""A running capture, looked into from a page: a WebSocket of rows, with a filter and a pause of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from usbip_capture.errors import UsbipError
from usbip_capture.filters.language import Filter
from usbip_capture.serving.session_capture import DeviceChoice
from usbip_capture.serving.sessions import Sessions
from usbip_capture.web.filters import parsed_filter
from usbip_capture.web.live_rows import LiveRows
from usbip_capture.web.side import WebSide

#: Seconds between two messages, rows in each, views at a time.
INTERVAL, MOST_ROWS, MAX_VIEWS = 0.1, 500, 16
#: Seconds in which a page has to take what is sent, so that it does not keep its place from others.
TIMEOUT = 30.0
#: Codes of closing. Ref: RFC 6455, 7.4
_DONE, _REFUSED, _TRY_LATER = 1000, 1008, 1013


async def live_view(websocket: WebSocket, side: WebSide) -> None:
    """Send rows until the client leaves or the capture has ended."""
    await websocket.accept()
    store, sessions = side.server.captures, side.server.sessions
    facts = None if store is None else store.find(websocket.path_params["id"])
    choice = None if store is None or facts is None else store.choice(facts.id)
    if sessions is None or facts is None or choice is None:
        await _refuse(websocket, "this capture does not run: there is nothing to look at", _REFUSED)
        return
    if not side.views.take(MAX_VIEWS):
        await _refuse(websocket, f"at most {MAX_VIEWS} pages look at captures at a time", _TRY_LATER)
        return
    try:
        await _View(websocket, side, sessions, facts.id, facts.filter, choice).run()
    finally:
        side.views.leave()


async def _refuse(websocket: WebSocket, why: str, code: int) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_json({"error": why})
        await websocket.close(code)


class _View:
    def __init__(
        self, websocket: WebSocket, side: WebSide, sessions: Sessions, capture_id: str, text: str, choice: DeviceChoice
    ) -> None:
        self._websocket = websocket
        self._side = side
        self._sessions = sessions
        self._capture_id = capture_id
        self._always = _filters(text)
        self._rows = LiveRows(choice, self._always)
        self._leaving = asyncio.Event()

    async def run(self) -> None:
        await self._filter(self._websocket.query_params.get("filter", ""))
        listening = asyncio.create_task(self._listen())
        try:
            await run_in_threadpool(self._sessions.join, self._rows)
            with suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
                await self._send()
        finally:
            listening.cancel()
            await asyncio.shield(run_in_threadpool(self._sessions.leave, self._rows))

    async def _send(self) -> None:
        """Raises WebSocketDisconnect, RuntimeError when the client has left, TimeoutError if it takes nothing."""
        while not self._leaving.is_set():
            rows, missed = self._rows.take(MOST_ROWS)
            if rows or missed:
                text = json.dumps({"rows": rows, "missed": missed}, separators=(",", ":"))
                await asyncio.wait_for(self._websocket.send_text(text), TIMEOUT)
            elif not self._is_running():
                await self._websocket.send_json({"ended": True})
                await self._websocket.close(_DONE)
                return
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), INTERVAL)

    def _is_running(self) -> bool:
        store = self._side.server.captures
        return store is not None and store.choice(self._capture_id) is not None

    async def _listen(self) -> None:
        """What the page asks for, until it leaves."""
        try:
            while True:
                await self._asked(await self._websocket.receive_text())
        except (WebSocketDisconnect, RuntimeError, KeyError):  # the latter: it was binary
            pass
        finally:
            self._leaving.set()

    async def _asked(self, text: str) -> None:
        try:
            asked = json.loads(text)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            await self._websocket.send_json({"error": 'send {"pause": true or false} or {"filter": "..."}'})
            return
        if isinstance(pause := asked.get("pause"), bool):
            self._rows.paused = pause
        if isinstance(wanted := asked.get("filter"), str):
            await self._filter(wanted)

    async def _filter(self, text: str) -> None:
        try:
            self._rows.filters = (*self._always, *_filters(text))
        except UsbipError as error:
            await self._websocket.send_json({"error": str(error)})
        else:
            await self._websocket.send_json({"filter": text})


def _filters(text: str) -> tuple[Filter, ...]:
    """Raises LocalProtocolError."""
    parsed = parsed_filter(text)
    return () if parsed is None else (parsed,)
