"""The application that a browser or a script talks to."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from usbip_capture.web.routing import Authenticate
from usbip_capture.web.side import WebSide


def make_app(side: WebSide, authenticate: Authenticate) -> Starlette:
    """authenticate: who asks; see `web.routing`."""
    app = Starlette(routes=_routes())
    app.state.side = side
    app.state.authenticate = authenticate
    return app


def _routes() -> list[BaseRoute]:
    return [Route("/healthz", _healthz)]


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")
