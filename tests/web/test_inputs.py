"""A parameter that a request does not have is an error: it would have no effect, and nobody would see it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.dashboards import asking, dashboard


@pytest.mark.parametrize(
    ("method", "path", "options", "name", "use"),
    [
        ("POST", "captures", {"json": {"max_byte": 10_000}}, "max_byte", "max_bytes"),
        ("POST", "devices/1-1/export", {"json": {"on": True, "once": True}}, "once", "on"),
        ("GET", "captures/stream", {"params": {"devices": "1-1"}}, "devices", "device"),
        ("GET", "events", {"params": {"lasts": "1"}}, "lasts", "last"),
        ("DELETE", "tokens", {"params": {"token": "ann"}}, "token", "name"),
    ],
)
def test_a_misspelled_parameter_is_named_with_those_that_are_there(
    method: str, path: str, options: dict[str, Any], name: str, use: str
) -> None:
    with dashboard() as (server, made), asking(made) as client:
        answer = client.request(method, f"api/v1/{path}", **options)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error.startswith(f"{name!r} is not a parameter: use ")
        assert use in error.partition(": use ")[2].split(", ")
        assert server.captures is not None
        assert server.captures.captures == []


def test_where_there_are_no_parameters_none_is_taken() -> None:
    with dashboard() as (_, made), asking(made) as client:
        answer = client.get("api/v1/devices", params={"vid": "1209"})
        assert (answer.status_code, answer.json()["error"]) == (
            400,
            "'vid' is not a parameter: there are no parameters here",
        )
