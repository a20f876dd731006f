"""The application that a browser or a script talks to."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Iterable
from importlib import import_module

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from usbip_capture.web import api
from usbip_capture.web.files import PageFiles, page_routes
from usbip_capture.web.guard import Guard
from usbip_capture.web.routing import Authenticate
from usbip_capture.web.side import WebSide

log = logging.getLogger(__name__)


class _Logged:
    """Logs what goes wrong below, once an answer has begun, too; who has left is not that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except (ClientDisconnect, WebSocketDisconnect, OSError):
            raise
        except Exception:
            log.exception("a request of the dashboard failed: %s", scope.get("path"))
            raise


def make_app(side: WebSide, authenticate: Authenticate, names: Iterable[str] = ()) -> Starlette:
    """authenticate: who asks; see `web.routing`. names: of this server, see `web.guard`."""
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(_Logged), Middleware(Guard, names=tuple(names))],
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    app.state.side = side
    app.state.authenticate = authenticate
    return app


def _routes() -> list[BaseRoute]:
    found: list[BaseRoute] = [Route("/healthz", _healthz)]
    for module in sorted(pkgutil.iter_modules(api.__path__), key=lambda module: module.name):
        found += import_module(f"{api.__name__}.{module.name}").ROUTES
    return [*found, *page_routes(PageFiles())]


async def _no_route(request: Request, error: Exception) -> Response:
    """There is no such path, or not with this method."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    sentence = f"{request.method} is not possible here" if status == 405 else "there is nothing here"
    return JSONResponse({"ok": False, "error": sentence}, status, headers)


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")
