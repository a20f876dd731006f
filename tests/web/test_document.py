"""The OpenAPI document has every route and no other one, and the routes do as it has them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route, WebSocketRoute

from tests.web.dashboards import asking, dashboard
from usbip_capture.web.app import _routes
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.roles import ADMINISTER, ROLES
from usbip_capture.web.routing import PREFIX

#: What is described elsewhere: the pages, and the interface of another server.
_ELSEWHERE = ("/assets/{name:path}", "/")
_COMPATIBLE = ("/api/", "/ws")
#: Answers of these never end.
_ENDLESS = (f"{PREFIX}/captures/stream",)


def _document() -> dict[str, Any]:
    spec = importlib.util.find_spec("usbip_capture.web")
    assert spec is not None
    assert spec.submodule_search_locations
    with open(f"{spec.submodule_search_locations[0]}/openapi.json") as file:
        document: dict[str, Any] = json.load(file)
    return document


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each."""
    for path, methods in _document()["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _is_there(operation: dict[str, Any]) -> bool:
    """Whether there is the module that its tag names."""
    (tag,) = operation["tags"]
    return tag == "app" or importlib.util.find_spec(f"usbip_capture.web.api.{tag}") is not None


def test_the_document_has_every_route_and_no_other_one() -> None:
    routes = set()
    for route in _routes():
        if isinstance(route, WebSocketRoute):
            routes.add((route.path, "WS"))
        elif isinstance(route, Route):
            routes |= {(route.path, method) for method in route.methods or () if method != "HEAD"}
    ours = {
        (path, method)
        for path, method in routes
        if path not in _ELSEWHERE and (path.startswith(PREFIX) or not path.startswith(_COMPATIBLE))
    }
    described = {
        (path, "WS" if operation.get("x-websocket") else method)
        for path, method, operation in _operations()
        if _is_there(operation)
    }
    assert ours == described


@pytest.fixture(scope="module", name="made")
def _made() -> Iterator[Dashboard]:
    with dashboard() as (_, made):
        yield made


@pytest.fixture(name="clients")
def _clients(made: Dashboard) -> Iterator[dict[str, httpx.Client]]:
    with asking(made, "look") as look, asking(made, "operate") as operate:
        yield {"look": look, "operate": operate}


def test_every_route_needs_the_role_that_the_document_has(made: Dashboard, clients: dict[str, httpx.Client]) -> None:
    seen = 0
    for path, method, operation in _operations():
        role = operation["x-role"]
        if not role or not _is_there(operation) or operation.get("x-websocket"):
            continue
        url = path.replace("{busid}", "1-1").replace("{id}", "1")
        with httpx.Client(base_url=made.urls[0], timeout=60) as nobody:
            assert nobody.request(method, url).status_code == 401, (method, path)
        for lower in ROLES[: ROLES.index(role)]:
            answer = clients[lower].request(method, url, json={})
            assert answer.status_code == 403, (method, path, lower)
            assert role in answer.json()["error"]
        seen += 1
    assert seen


def test_the_document_is_there_for_everybody(made: Dashboard) -> None:
    answer = httpx.get(f"{made.urls[0]}api/v1/openapi.json", timeout=60)
    assert answer.json() == _document()


schema = schemathesis.openapi.from_dict(_document()).include(func=lambda context: _is_tried(context.operation))


def _is_tried(operation: Any) -> bool:
    raw = operation.definition.raw
    return _is_there(raw) and not raw.get("x-websocket") and operation.path not in _ENDLESS


@pytest.fixture(scope="module", name="token")
def _token(made: Dashboard) -> str:
    return made.side.tokens.add("schemathesis", ADMINISTER)


@schema.parametrize()
@settings(
    max_examples=6, phases=[Phase.explicit, Phase.generate], deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_what_is_generated_from_the_document_is_answered_as_it_has_it(
    case: Case[Any], made: Dashboard, token: str
) -> None:
    headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
    answer = case.call(base_url=made.urls[0].rstrip("/"), headers=headers, timeout=60)
    assert answer.status_code != 500, answer.text
    case.validate_response(
        answer, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
    )
