"""`usbip-capture token`, as it is typed, for a server that runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.web.dashboards import dashboard
from usbip_capture.cli import exits
from usbip_capture.cli.main import main
from usbip_capture.web.dashboard import Dashboard

NAME = "token-test"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="made")
def _made() -> Iterator[Dashboard]:
    with dashboard(name=NAME) as (_, made):
        yield made


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["token", *arguments, "--server", NAME])  # others may run on this machine
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_who_has_lost_the_first_token_makes_another_one(made: Dashboard, run: Run) -> None:
    code, out, err = run("mine", "--role", "administer")
    assert code == 0
    assert "not shown again" in err
    link = out.strip()
    assert link.startswith(made.urls[0])
    assert httpx.get(link, timeout=60).status_code == 303
    code, out, _ = run("--list")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["admin", "administer"], ["mine", "administer"]]
    assert run("--remove", "admin")[0] == 0
    assert [one["name"] for one in json.loads(run("--list", "--json")[1])] == ["mine"]
    links = json.loads(run("script", "--json")[1])["links"]
    token = links[0].partition("=")[2]
    answer = httpx.get(f"{made.urls[0]}api/v1/me", headers={"authorization": f"Bearer {token}"}, timeout=60)
    assert answer.json() == {"name": "script", "role": "look"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [([], "name the token"), (["a", "--list"], "go without another NAME"), (["--list", "--role", "look"], "--role"),
     (["a\x1b[2J"], "cannot be the name of a token"), (["admin"], "there is a token of the name"),
     (["--remove", "nobody"], "there is no token"), (["--remove", "admin"], "the last token that may administer")],
)  # fmt: skip
def test_what_cannot_be_done_is_a_sentence(made: Dashboard, run: Run, arguments: list[str], sentence: str) -> None:
    code, out, err = run(*arguments)
    assert code != 0
    assert not out
    assert sentence in err
    assert "\x1b" not in err


def test_a_server_without_a_dashboard_has_no_tokens(run: Run) -> None:
    with dashboard(web=[], name=NAME):
        assert "start it with --web" in run("--list")[2]
    assert run("--list")[0] == exits.NOT_RUNNING


def test_the_status_names_the_dashboard(made: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--server", NAME]) == 0
    assert f"dashboard: {made.urls[0]}" in capsys.readouterr().out
