"""Who may ask, and how: tokens, cookies, guesses."""

from __future__ import annotations

import base64
import json
import os
import stat

import httpx
import pytest
from starlette.requests import HTTPConnection

from tests.web.dashboards import asking, browser, dashboard
from usbip_capture.errors import FileFormatError, LocalProtocolError
from usbip_capture.server.events import SIGN_IN_REFUSED, SIGNED_IN, Events
from usbip_capture.web.cookies import Cookies, key_path
from usbip_capture.web.roles import ADMINISTER, LOOK, OPERATE, Refused
from usbip_capture.web.routing import Conflict, NotFound
from usbip_capture.web.sign_in import SignIn
from usbip_capture.web.tokens import Tokens, tokens_path

ME = "/api/v1/me"


def test_the_link_of_the_first_start_signs_a_browser_in_and_is_shown_once() -> None:
    with dashboard() as (server, made):
        assert made.link.startswith(f"{made.urls[0]}?token=")
        with browser(made) as page:
            assert page.get(ME).status_code == 401
            answer = page.get(made.link)
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            cookie = answer.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert "secure" not in cookie
            assert page.get(ME).json() == {"name": "admin", "role": ADMINISTER}
            assert [event.kind for event in server.events.after(0, 100)].count(SIGNED_IN) == 1
            kept = dict(page.cookies)
        port = made.addresses[0][1]
    with dashboard(web=f"127.0.0.1:{port}") as (_, made):  # a restart
        assert not made.link
        with browser(made, cookies=kept) as page:
            assert page.get(ME).json()["name"] == "admin"
            answer = page.post("/api/v1/logout")
            assert answer.json()["ok"]
            assert "max-age=0" in answer.headers["set-cookie"].lower()


def test_a_link_with_a_token_that_is_not_known_leads_to_the_page_where_one_signs_in() -> None:
    with dashboard() as (_, made), browser(made) as page:
        answer = page.get("/?token=wrong")
        assert (answer.status_code, answer.headers["location"]) == (303, "/#/login")
        assert "set-cookie" not in answer.headers


def test_signing_in_by_hand() -> None:
    with dashboard() as (_, made), browser(made) as page:
        assert page.post("/api/v1/login", json={"token": "no"}).status_code == 401
        assert page.post("/api/v1/login", json={}).status_code == 400
        token = made.side.tokens.add("me", LOOK)
        assert page.post("/api/v1/login", json={"token": token}).json() == {"name": "me", "role": LOOK}
        assert page.get(ME).json() == {"name": "me", "role": LOOK}
        made.side.tokens.remove("me")
        assert page.get(ME).status_code == 401  # the cookie ends with its token
        made.side.tokens.add("me", ADMINISTER)
        assert page.get(ME).status_code == 401  # another one of the same name is another one


@pytest.mark.parametrize("scheme", ["Bearer {}", "token {}", "bearer  {}"])
def test_programs_send_their_token(scheme: str) -> None:
    with dashboard() as (_, made):
        token = made.side.tokens.add("script", OPERATE)
        given = {"authorization": scheme.format(token)}
        assert httpx.get(made.urls[0] + ME[1:], headers=given, timeout=60).json() == {"name": "script", "role": OPERATE}


def test_basic_has_the_token_as_the_password() -> None:
    with dashboard() as (_, made):
        token = made.side.tokens.add("script", OPERATE)
        url = made.urls[0] + ME[1:]
        assert httpx.get(url, auth=("anybody", token), timeout=60).json()["name"] == "script"
        assert httpx.get(url, auth=("script", "no"), timeout=60).status_code == 401
        for wrong in ("Basic !", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Digest x", ""):
            answer = httpx.get(url, headers={"authorization": wrong}, timeout=60)
            assert (answer.status_code, answer.json()["ok"]) == (401, False)


def test_who_guesses_is_slowed_down_and_keeps_nobody_out_who_was_right_before() -> None:
    now = [0.0]
    tokens, events = Tokens(), Events()
    right = tokens.add("right", LOOK)
    later = tokens.add("later", LOOK)
    sign_in = SignIn(tokens, Cookies(tokens), events, lambda: now[0])
    assert sign_in.authenticate(_from("192.0.2.1", right)).name == "right"
    statuses = [_status(sign_in, "192.0.2.1", f"guess {number}") for number in range(20)]
    assert statuses == [401] * 9 + [429] * 11
    assert sign_in.authenticate(_from("192.0.2.1", right)).name == "right"
    assert _status(sign_in, "192.0.2.1", later) == 429  # not even looked at
    assert sign_in.authenticate(_from("192.0.2.2", later)).name == "later"  # of another address
    now[0] += 2.0
    assert sign_in.authenticate(_from("192.0.2.1", later)).name == "later"
    assert any(event.kind == SIGN_IN_REFUSED for event in events.after(0, 100))


def test_what_is_kept_is_for_its_owner_only_and_has_no_token_in_it() -> None:
    tokens = Tokens()
    token = tokens.add("me", LOOK)
    Cookies(tokens)
    for path in (tokens_path(), key_path()):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(tokens_path()) as file:
        assert token not in file.read()


def test_tokens_are_named_once_and_the_last_administrator_stays() -> None:
    tokens = Tokens()
    assert tokens.make_first()
    assert not tokens.make_first()
    with pytest.raises(Conflict):
        tokens.add("admin", LOOK)
    with pytest.raises(Conflict):
        tokens.remove("admin")
    with pytest.raises(NotFound):
        tokens.remove("nobody")
    for name, role in (("", LOOK), ("a\nb", LOOK), (" a", LOOK), ("x" * 65, LOOK), ("a", "god")):
        with pytest.raises(LocalProtocolError):
            tokens.add(name, role)
    tokens.add("second", ADMINISTER)
    tokens.remove("admin")
    assert [token.name for token in tokens.all()] == ["second"]


def test_another_program_may_change_the_tokens() -> None:
    ours, theirs = Tokens(), Tokens()
    ours.make_first()
    token = theirs.add("later", LOOK)
    found = ours.find(token)
    assert found is not None
    assert found.name == "later"


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"tokens": 1}', b'{"tokens": [{}]}', b"\xff", b"[" * 100_000,
     b'{"tokens": [{"name": "a", "role": "look", "sha256": "zz", "created": 0}]}'],
)  # fmt: skip
def test_a_damaged_file_is_a_sentence_and_lets_nobody_in(content: bytes) -> None:
    tokens = Tokens()
    tokens.make_first()
    with open(tokens_path(), "wb") as file:
        file.write(content)
    with pytest.raises(FileFormatError, match="damaged"):
        tokens.find("")
    with pytest.raises(FileFormatError):
        tokens.make_first()


def test_no_cookie_but_ours_is_taken() -> None:
    tokens = Tokens()
    tokens.make_first()
    cookies = Cookies(tokens)
    (token,) = tokens.all()
    good = cookies.make(token)
    found = cookies.find(good)
    assert found == token
    body, _, signature = good.partition(".")
    forged = [f"{_encoded(['admin', 1])}.{signature}", f"{_encoded(1)}.{signature}", f"{_encoded([[], []])}.a"]
    cut = ["", ".", body, f"{body}.", f"{body}.é", f"{body}.{signature[:-1]}", f"{body}x.{signature}", "x" * 9999]
    for wrong in (*forged, *cut):
        assert cookies.find(wrong) is None
    os.unlink(key_path())
    assert Cookies(tokens).find(good) is None  # another key


def test_a_role_may_do_what_those_below_it_may() -> None:
    with dashboard() as (_, made):
        for role in (LOOK, OPERATE, ADMINISTER):
            with asking(made, role) as client:
                assert client.get(ME).json()["role"] == role


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _from(host: str, token: str) -> HTTPConnection:
    headers = [(b"host", b"127.0.0.1:8080"), (b"authorization", f"Bearer {token}".encode())]
    return HTTPConnection({"type": "http", "headers": headers, "client": (host, 1)})


def _status(sign_in: SignIn, host: str, token: str) -> int:
    with pytest.raises(Refused) as caught:
        sign_in.authenticate(_from(host, token))
    return caught.value.status


def test_who_may_sign_in_is_reported_when_it_changes() -> None:
    with dashboard() as (server, made), asking(made) as client:
        assert client.post("/api/v1/tokens", json={"name": "ann", "role": "look"}).status_code == 200
        assert client.delete("/api/v1/tokens", params={"name": "ann"}).status_code == 200
        made.add_token("bob", "operate")
        made.remove_token("bob")
        kinds = ("token-added", "token-removed")
        found = [(event.kind, event.text, event.by) for event in server.events.after(0, 100) if event.kind in kinds]
    assert found == [
        ("token-added", "ann: look", "web:test-administer"),
        ("token-removed", "ann", "web:test-administer"),
        ("token-added", "bob: operate", "user"),
        ("token-removed", "bob", "user"),
    ]
