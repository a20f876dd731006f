"""The description of `/api/v1`, for people and for programs. Ref: OpenAPI 3.1"""

from __future__ import annotations

from importlib import resources

from starlette.responses import Response
from starlette.routing import BaseRoute

from usbip_capture.web.roles import ANYONE
from usbip_capture.web.routing import Call, api


def _document(call: Call) -> object:
    """The file as it is."""
    content = (resources.files("usbip_capture.web") / "openapi.json").read_bytes()
    return Response(content, media_type="application/json")


ROUTES: list[BaseRoute] = [api("GET", "/openapi.json", _document, ANYONE)]
