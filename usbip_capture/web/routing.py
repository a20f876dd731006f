"""How a function becomes a route of `/api/v1`: its role, its JSON, its errors as sentences."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from usbip_capture.errors import (
    CaptureError,
    DeviceNotFound,
    FileFormatError,
    ImportRefused,
    LocalProtocolError,
    UsbipError,
)
from usbip_capture.serving.capture_store import TooMany
from usbip_capture.serving.operations import NotPossible
from usbip_capture.web.inputs import Inputs, inputs_of
from usbip_capture.web.lasting import done_while_allowed, parts_while_allowed
from usbip_capture.web.roles import ANYONE, ROLES, Refused, User

if TYPE_CHECKING:
    from usbip_capture.web.side import WebSide

log = logging.getLogger(__name__)

PREFIX = "/api/v1"
#: Bytes of a request's body.
MAX_BODY = 64 << 10
#: Of a WebSocket that is closed for it. Ref: RFC 6455, 7.4.1
_POLICY_VIOLATION = 1008
#: Seconds for it to come.
_BODY_TIMEOUT = 20.0


class NotHere(UsbipError):
    """What was asked for is not to be had on this kind of system."""


class NotFound(UsbipError):
    """There is nothing of this name or number."""


class Conflict(UsbipError):
    """It cannot be done in the state that things are in."""


@dataclass(slots=True)
class Call:
    """One request. path: parameters of the route; body: the JSON object that was sent."""

    side: WebSide
    request: Request
    user: User
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    def text(self, key: str, default: str | None = None) -> str:
        """A text of the body. Raises LocalProtocolError."""
        value = self.body.get(key, default)
        if not isinstance(value, str):
            raise LocalProtocolError(f"{key} must be text, not {value!r}" if key in self.body else f"{key} is missing")
        return value

    def named(self, key: str, default: str | None = None) -> str:
        """A text of the body, or of the query: what is to be removed. Raises LocalProtocolError."""
        return self.text(key, self.query.get(key, default))

    def flag(self, key: str) -> bool:
        """True or false in the body. Raises LocalProtocolError."""
        value = self.body.get(key)
        if not isinstance(value, bool):
            raise LocalProtocolError(f"{key} must be true or false" if key in self.body else f"{key} is missing")
        return value

    def number(self, key: str, default: int = 0) -> int:
        """A whole number of the body, from 0 on. Raises LocalProtocolError."""
        value = self.body.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise LocalProtocolError(f"{key} must be a whole number from 0 on, not {value!r}")
        return value


Handler = Callable[[Call], object]
#: Who asks, by what came with the request. Raises Refused.
Authenticate = Callable[[HTTPConnection], User]


def api(method: str, path: str, handler: Handler, role: str, prefix: str = PREFIX, *, at_once: bool = False) -> Route:
    """A route of `/api/v1`; `handler` runs on a thread of the pool. role: one of ROLES, or ANYONE.

    at_once: it runs on the event loop, and never waits.
    """
    if role not in (*ROLES, ANYONE):
        raise ValueError(role)
    inputs = inputs_of(method, prefix + path)

    async def run(call: Call) -> object:
        return handler(call) if at_once else await run_in_threadpool(handler, call)

    async def endpoint(request: Request) -> Response:
        side, authenticate = request.app.state.side, request.app.state.authenticate
        response = await answered(_called(request, side, authenticate, run, role, inputs))
        if isinstance(response, StreamingResponse):
            response.body_iterator = parts_while_allowed(
                response.body_iterator, lambda: authenticate(request).check(role)
            )
        return response

    return Route(prefix + path, endpoint, methods=[method], name=f"{method} {path}")


def live(
    path: str, handler: Callable[[WebSocket, WebSide], Awaitable[None]], role: str, prefix: str = PREFIX
) -> WebSocketRoute:
    """A WebSocket of `/api/v1`; `handler` runs on the event loop, accepts it, and ends with it."""
    if role not in ROLES:
        raise ValueError(role)

    async def endpoint(websocket: WebSocket) -> None:
        def check() -> None:
            websocket.app.state.authenticate(websocket).check(role)

        try:
            check()
        except UsbipError as error:
            await websocket.send_denial_response(Json({"ok": False, "error": str(error)}, status_of(error)))
            return
        ended = await done_while_allowed(handler(websocket, websocket.app.state.side), check)
        if ended is not None:
            with suppress(RuntimeError, WebSocketDisconnect):  # it has left, or is closed already
                await websocket.close(_POLICY_VIOLATION)

    return WebSocketRoute(prefix + path, endpoint, name=f"WS {path}")


class Json(JSONResponse):
    """In ASCII: strings of devices may have halves of characters, which nothing else can carry."""

    def render(self, content: object) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


async def answered(result: Awaitable[object]) -> Response:
    """The response for what a handler returns or raises."""
    try:
        value = await result
    except UsbipError as error:
        return Json({"ok": False, "error": str(error)}, status_of(error))
    except Exception:
        log.exception("a request of the dashboard failed")
        return Json({"ok": False, "error": "an internal error: see the server's log"}, 500)
    return value if isinstance(value, Response) else Json(value)


def status_of(error: UsbipError) -> int:
    """The HTTP status of an error. Ref: RFC 9110, 15"""
    if isinstance(error, Refused):
        return error.status
    kinds = (
        ((DeviceNotFound, NotFound), 404),
        ((Conflict, ImportRefused, FileFormatError, NotPossible, TooMany), 409),
        ((LocalProtocolError,), 400),
        ((NotHere,), 501),
        ((CaptureError,), 507),
    )
    return next((status for kind, status in kinds if isinstance(error, kind)), 502)


async def _called(
    request: Request,
    side: WebSide,
    authenticate: Authenticate,
    run: Callable[[Call], Awaitable[object]],
    role: str,
    inputs: Inputs,
) -> object:
    user = User("", ANYONE) if role == ANYONE else authenticate(request)
    user.check(role)
    try:
        body = await asyncio.wait_for(_body(request), _BODY_TIMEOUT)
    except asyncio.TimeoutError as error:
        raise LocalProtocolError(f"the request was not sent within {_BODY_TIMEOUT:g} s") from error
    inputs.check(request.query_params, body)
    call = Call(side, request, user, request.path_params, request.query_params, body)
    return await run(call)


async def _body(request: Request) -> Mapping[str, Any]:
    """Raises LocalProtocolError."""
    if request.method in ("GET", "HEAD"):
        return {}
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise LocalProtocolError(f"the request is too long: at most {MAX_BODY} bytes are read")
    if not data:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise LocalProtocolError("send JSON, with Content-Type: application/json")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LocalProtocolError(f"what was sent is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise LocalProtocolError("what was sent is not a JSON object")
    return body
