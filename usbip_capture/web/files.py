"""The files of the pages, as they are in this package: read once, sent whole, and only if the browser has others."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from usbip_capture.web.roles import Refused
from usbip_capture.web.routing import NotFound, answered, status_of

if TYPE_CHECKING:
    from importlib.abc import Traversable

_INDEX = "index.html"
#: Of the reports; the chart of the pages is theirs.
_SHARED = ("uPlot.iife.min.js", "uPlot.min.css")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


class _File(NamedTuple):
    """tag: an ETag, of the content. Ref: RFC 9110, 8.8.3"""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str


class PageFiles:
    """All of them, by path below `/assets/`."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        own = resources.files("usbip_capture.web") / "assets"
        if own.is_dir():
            self._add(own, "")
        for name in _SHARED:
            self._files[name] = _file(name, (resources.files("usbip_capture.report") / "assets" / name).read_bytes())

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes that are sent of each, compressed."""
        return {name: len(file.compressed) for name, file in self._files.items()}

    def response(self, request: Request, name: str) -> Response:
        """Of one file, for a GET or HEAD request. Raises NotFound."""
        file = self._files.get(name)
        if file is None:
            raise NotFound(f"there is no page {name!r} here")
        headers = {"etag": file.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if file.tag in tags:
            return Response(None, 304, headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.compressed, 200, headers, file.media_type)
        return Response(file.content, 200, headers, file.media_type)

    def _add(self, folder: Traversable, before: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                self._add(entry, f"{before}{entry.name}/")
            elif not entry.name.startswith("."):
                self._files[before + entry.name] = _file(entry.name, entry.read_bytes())


def _file(name: str, content: bytes) -> _File:
    ending = "." + name.rpartition(".")[2]
    media_type = _TYPES.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    tag = hashlib.sha256(content).hexdigest()[:32]
    return _File(content, gzip.compress(content, mtime=0), media_type, f'"{tag}"')


def page_routes(files: PageFiles) -> list[BaseRoute]:
    """`/` and `/assets/…`. A link with a token signs in, and leads to the page without it."""

    async def index(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None or request.method != "GET":
            return await answered(_found(files, request, _INDEX))
        response = RedirectResponse("/", 303, {"cache-control": "no-store"})
        side = request.app.state.side
        try:
            if side.sign_in is not None:
                side.sign_in.sign_in(request, token, response)
        except Refused as error:
            if error.status == 429:
                return JSONResponse({"ok": False, "error": str(error)}, status_of(error))
            return RedirectResponse("/#/login", 303, {"cache-control": "no-store"})
        return response

    async def asset(request: Request) -> Response:
        return await answered(_found(files, request, request.path_params["name"]))

    return [Route("/", index), Route("/assets/{name:path}", asset)]


async def _found(files: PageFiles, request: Request, name: str) -> Response:
    return files.response(request, name)
