"""The names that each request of `/api/v1` may have in its address and its JSON, as the OpenAPI document lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from usbip_capture.errors import LocalProtocolError


class Inputs(NamedTuple):
    """query: parameters of the address; body: keys of the JSON object, None where any may stand there."""

    query: frozenset[str] | None = None
    body: frozenset[str] | None = None

    def check(self, query: Iterable[str], body: Iterable[str]) -> None:
        """Raises LocalProtocolError for a name that would have no effect."""
        for known, given in ((self.query, query), (self.body, body)):
            unknown = () if known is None else [name for name in given if name not in known]
            if unknown:
                allowed = f"use {', '.join(sorted(known))}" if known else "there are no parameters here"
                raise LocalProtocolError(f"{unknown[0][:64]!r} is not a parameter: {allowed}")


@cache
def inputs_of(method: str, path: str) -> Inputs:
    """Of the request with this method and path; any, where it is not in the document."""
    operation = _document()["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return Inputs()
    query = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = content.get("schema", {}).get("properties")
    if method == "DELETE" and body:  # not every program can send a body with it
        query |= body.keys()
    return Inputs(frozenset(query), frozenset(body) if body else None)


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((resources.files("usbip_capture.web") / "openapi.json").read_bytes())
    return document
