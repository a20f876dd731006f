"""Settings, access, exports, leases and restarts by the REST interface: in the file, and in the server that runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from tests.fakes.local_bus import FakeBus
from tests.waiting import wait_until
from tests.web.dashboards import configured
from usbip_capture import LocalServer, serve
from usbip_capture.access.rules import AccessRule
from usbip_capture.cli import commands
from usbip_capture.device import Device
from usbip_capture.errors import CannotListen, LocalProtocolError, UsbipError
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.server_table import ServerTable, read_server_table, server_keys
from usbip_capture.serving.restarting import Restart, check_settings
from usbip_capture.system import folder_lock
from usbip_capture.web.api import access, exports, leases, settings, system, tokens
from usbip_capture.web.confirming import Confirmations
from usbip_capture.web.roles import ADMINISTER, LOOK, OPERATE, User
from usbip_capture.web.service import WebService
from usbip_capture.web.setting_words import WORDS
from usbip_capture.web.side import WebSide

ROUTES = [*settings.ROUTES, *access.ROUTES, *exports.ROUTES, *leases.ROUTES, *system.ROUTES, *tokens.ROUTES]
OWN = '[server]\nexports = ["1-1"]  # the board\nmax-clients = 3\n'


OPEN: list[Asking] = []


class Asking:
    """A client of the interface; role: of who asks."""

    def __init__(self, side: WebSide) -> None:
        self.side = side
        self.role = ADMINISTER
        self.name = "ann"
        app = Starlette(routes=ROUTES)
        app.state.side = side
        app.state.authenticate = lambda connection: User(self.name, self.role)
        self._service = WebService(app, [("127.0.0.1", 0)])
        host, port = self._service.addresses[0]
        self.base = f"http://{host}:{port}"
        self._client = httpx.Client(base_url=f"{self.base}/api/v1", timeout=60, trust_env=False)
        OPEN.append(self)

    def close(self) -> None:
        self._client.close()
        self._service.close()

    def __call__(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        answer = self._client.request(method, path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        found = answer.json()
        if status >= 400:
            assert found["ok"] is False
            assert found["error"].isprintable()
        return found


@pytest.fixture(autouse=True)
def _all_are_closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return configured(tmp_path, monkeypatch, OWN)


@pytest.fixture
def bus() -> FakeBus:
    made = FakeBus()
    made.plug("1-1", serial="7")
    made.plug("1-2", (0x1234, 0x5678))
    return made


@pytest.fixture
def server(path: Path, bus: FakeBus) -> Iterator[LocalServer]:
    with serve(listen="127.0.0.1:0", bus=bus) as made:
        yield made


@pytest.fixture
def ask(server: LocalServer) -> Asking:
    return Asking(WebSide(server))


def importing(server: LocalServer) -> closing[Device]:
    return closing(ServerAddress.parse(server.address, timeout=20.0).import_device(Selector("1-1")))


def by_key(answer: Any) -> dict[str, Any]:
    return {one["key"]: one for one in answer["settings"]}


def test_all_settings_are_shown_with_the_words_of_the_command_line(ask: Asking, path: Path) -> None:
    answer = ask("GET", "/settings")
    found = by_key(answer)
    assert answer["file"] == str(path)
    assert list(found) == list(server_keys())
    assert found["max-clients"]["value"] == 3
    assert (found["max-clients"]["default"], found["max-clients"]["kind"]) == (0, "number")
    assert found["exports"]["value"] == ["1-1"]
    assert found["access"]["choices"] == ["open", "closed"]
    assert [one["key"] for one in answer["settings"] if not one["restart"]] == [
        "exports", "rules", "access", "allow", "allow-public", "force",
    ]  # fmt: skip
    args = commands.parse("serve", [])
    options = {action.dest.replace("_", "-"): action.help for action in args.parser._actions}
    for key, setting in found.items():
        assert setting["help"], f"{key} has no words in web/setting_words.py"
        assert setting["group"]
        if options.get(key):
            assert setting["help"] in options[key], key
    assert WORDS.keys() <= found.keys()


def test_what_is_changed_is_in_the_file_and_followed(ask: Asking, server: LocalServer, path: Path) -> None:
    answer = ask("PATCH", "/settings", {"max-clients": 5, "exports": ["1-1", "1-2"], "name": 'a"b <b>'})
    assert answer == {
        "ok": True,
        "outcome": 'exports is 1-1, 1-2 now; max-clients is 5, name is a"b <b> from the next start on',
        "restart": True,
    }
    assert [info.busid for info in server.devices] == ["1-1", "1-2"]
    assert path.read_text() == OWN.replace('["1-1"]', '["1-1", "1-2"]').replace("= 3", "= 5").replace(
        "[server]\n", '[server]\nname = "a\\"b <b>"\n'
    )
    assert ask("PATCH", "/settings", {"max-clients": 5})["outcome"] == "nothing is changed: it is so already"
    answer = ask("PATCH", "/settings", {"rules": ["deny any 1-2"], "access": "open"})
    assert (answer["restart"], str(server.access.rules.mode)) == (False, "open")
    assert list(server.access.rules) == [AccessRule.parse("deny any 1-2")]
    assert by_key(ask("GET", "/settings"))["rules"]["value"] == ["deny any 1-2 all".removesuffix(" all")]
    ask("PATCH", "/settings", {"exports": None})
    assert not server.devices
    kinds = {(event.kind, event.by) for event in server.events.after(0, 100)}
    assert ("settings-changed", "web:ann") in kinds


def test_what_the_command_line_has_counts(path: Path, bus: FakeBus) -> None:
    with serve(["1-1"], listen="127.0.0.1:0", bus=bus) as server:
        server.restart = Restart(read_server_table, given=["max_clients", "listen"])
        ask = Asking(WebSide(server))
        shown = by_key(ask("GET", "/settings"))
        assert (shown["exports"]["running"], shown["max-clients"]["running"], shown["name"]["running"]) == (
            "1-1",
            "",
            "",
        )
        given = {key for key, setting in shown.items() if setting["given"]}
        assert given >= {"max-clients", "listen", "exports", "rules"}
        assert "name" not in given
        answer = ask("PATCH", "/settings", {"max-clients": 9, "name": "x", "exports": ["1-2"]})
        assert answer == {
            "ok": True, "restart": True, "outcome": "name is x from the next start on; max-clients, exports: written, "
            "but the command line of this server has it, and counts",
        }  # fmt: skip
        assert server.rules == ["1-1"]


@pytest.mark.parametrize(
    "body",
    [{}, {"no-such": 1}, {"max-clients": "x"}, {"listen": "::::"}, {"exports": ["\x1b[2J"]}, {"name": "\ud800"},
     {"rules": ["allow"]}, {"max-clients": 4, "access": "ajar"}, {"request-timeout": 1e400}],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_sentence(body: dict[str, object], ask: Asking, path: Path) -> None:
    ask("PATCH", "/settings", body, 400)
    assert path.read_text() == OWN


def test_a_file_that_cannot_be_read_is_a_sentence(ask: Asking, path: Path) -> None:
    path.write_text("[server\n")
    for method, where, body in (
        ("GET", "/settings", None), ("PATCH", "/settings", {"name": "x"}), ("POST", "/exports", {"rule": "1-2"}),
        ("PUT", "/access/mode", {"mode": "open"}),
    ):  # fmt: skip
        assert "is not valid TOML" in ask(method, where, body, 409)["error"]
    assert path.read_text() == "[server\n"
    assert ask("GET", "/access")["mode"] == "closed"


def test_defaults_are_asked_for_twice(ask: Asking, server: LocalServer, path: Path) -> None:
    path.write_text(OWN + 'hooks = ["attach=https://example.com/usb?secret=7"]\n')
    offered = ask("GET", "/settings/defaults")
    assert "max-clients from 3 to 0" in offered["text"]
    assert "hooks from attach=https://example.com to empty" in offered["text"]
    assert "secret" not in str((offered, ask("GET", "/settings")))
    assert "exports from 1-1 to empty" in offered["text"]
    ask("POST", "/settings/defaults", {"confirm": "guess"}, 400)
    ask("POST", "/settings/defaults", {}, 400)
    ask.name = "bob"
    ask("POST", "/settings/defaults", {"confirm": offered["confirm"]}, 400)
    ask.name = "ann"
    assert ask("POST", "/settings/defaults", {"confirm": offered["confirm"]})["restart"]
    assert read_server_table() == ServerTable(exports=())
    assert path.read_text() == "[server]\nexports = []  # the board\n"
    assert not server.devices
    ask("POST", "/settings/defaults", {"confirm": offered["confirm"]}, 400)


def test_hooks_are_seen_without_their_secrets_and_changed_in_the_file_only(ask: Asking, path: Path) -> None:
    """Who has a token is not to run programs on this machine."""
    text = OWN + 'hooks = ["plug=/bin/notify --password s3cret", "attach=https://example.com/s3cret"]\n'
    path.write_text(text)
    answer = ask("GET", "/settings")
    assert "s3cret" not in str(answer)
    assert by_key(answer)["hooks"]["value"] == ["plug=/bin/notify", "attach=https://example.com"]
    assert by_key(answer)["hooks"]["fixed"]
    for value in (["plug=/bin/sh -c id"], []):
        refused = ask("PATCH", "/settings", {"hooks": value, "max-clients": 9}, 403)
        assert refused["error"] == f"hooks may run programs on this machine: change it in {path}"
    assert path.read_text() == text
    assert "s3cret" not in str(ask("GET", "/settings/defaults"))
    assert "s3cret" not in str(ask("PATCH", "/settings", {"hooks": None}))
    assert read_server_table().hooks == ()


@pytest.mark.parametrize("key", ["pcap", "audit", "unix", "client-ca"])
def test_what_names_a_file_is_changed_in_the_file_only(ask: Asking, path: Path, key: str) -> None:
    """Who has a token is not to have the server write where it likes."""
    text = path.read_text()
    assert by_key(ask("GET", "/settings"))[key]["fixed"]
    refused = ask("PATCH", "/settings", {key: "/etc/passwd"}, 403)
    assert refused["error"] == f"{key} names a file of this machine: change it in {path}"
    assert path.read_text() == text


def test_confirmations_are_good_once_for_two_minutes_and_bounded() -> None:
    now = 0.0
    made = Confirmations(lambda: now)
    token = made.offer("/a", "ann")
    with pytest.raises(LocalProtocolError, match="asked twice"):
        made.check("/b", "ann", token)
    made.check("/a", "ann", token)
    with pytest.raises(LocalProtocolError):
        made.check("/a", "ann", token)
    token = made.offer("/a", "ann")
    now = 121.0
    with pytest.raises(LocalProtocolError):
        made.check("/a", "ann", token)
    first = made.offer("/a", "user 0")
    for number in range(1, 200):
        made.offer("/a", f"user {number}")
    with pytest.raises(LocalProtocolError):
        made.check("/a", "user 0", first)


def test_roles(ask: Asking) -> None:
    needed = {
        ("GET", "/settings"): LOOK, ("PATCH", "/settings"): ADMINISTER, ("GET", "/settings/defaults"): ADMINISTER,
        ("POST", "/settings/defaults"): ADMINISTER, ("GET", "/access"): LOOK, ("PUT", "/access/mode"): ADMINISTER,
        ("POST", "/access/rules"): ADMINISTER, ("DELETE", "/access/rules"): ADMINISTER,
        ("POST", "/access/check"): LOOK, ("GET", "/exports"): LOOK, ("POST", "/exports"): ADMINISTER,
        ("DELETE", "/exports"): ADMINISTER, ("GET", "/leases"): LOOK, ("POST", "/leases"): OPERATE,
        ("DELETE", "/leases"): OPERATE, ("GET", "/system"): LOOK, ("GET", "/restart"): ADMINISTER,
        ("POST", "/restart"): ADMINISTER, ("GET", "/tokens"): ADMINISTER, ("POST", "/tokens"): ADMINISTER,
        ("DELETE", "/tokens"): ADMINISTER,
    }  # fmt: skip
    assert {tuple(str(route.name).split(" ")) for route in ROUTES} == needed.keys()  # type: ignore[attr-defined]
    for (method, where), role in needed.items():
        if role != LOOK:
            ask.role = {OPERATE: LOOK, ADMINISTER: OPERATE}[role]
            ask(method, where, {}, 403)


def test_access_is_changed_in_the_file_and_in_the_server(ask: Asking, server: LocalServer) -> None:
    assert ask("GET", "/access") == {
        "mode": "closed", "rules": [], "follows": True, "listening": [server.address], "paired": [],
    }  # fmt: skip
    assert ask("POST", "/access/rules", {"rule": "allow 192.0.2.0/24 1-1"})["ok"]
    answer = ask("POST", "/access/rules", {"rule": "deny 192.0.2.66"})
    assert answer["outcome"] == "the rule `deny 192.0.2.66 all` is in force"
    assert ask("GET", "/access")["rules"] == [
        {"rule": "allow 192.0.2.0/24 1-1", "source": "configuration"},
        {"rule": "deny 192.0.2.66 all", "source": "configuration"},
    ]
    assert list(map(str, read_server_table().rules or ())) == ["allow 192.0.2.0/24 1-1", "deny 192.0.2.66 all"]
    ask("DELETE", "/access/rules?rule=deny%20192.0.2.66", {})
    ask("DELETE", "/access/rules", {"rule": "deny 192.0.2.66"}, 404)
    assert ask("PUT", "/access/mode", {"mode": "open"})["outcome"] == "access is open"
    assert ask("PUT", "/access/mode", {"mode": "open"})["outcome"] == "access is already open"
    assert (server.access.rules.mode, len(server.access.rules)) == ("open", 1)
    ask("PUT", "/access/mode", {"mode": "ajar"}, 400)
    ask("POST", "/access/rules", {"rule": "permit any"}, 400)
    ask("POST", "/access/rules", {}, 400)


def test_a_rule_of_the_command_line_is_removed_too(path: Path, bus: FakeBus) -> None:
    with serve(["1-1"], rules=["allow 192.0.2.7", "deny any 1-2"], listen="127.0.0.1:0", bus=bus) as server:
        ask = Asking(WebSide(server))
        assert ask("GET", "/access")["rules"][0] == {"rule": "allow 192.0.2.7 all", "source": "command line"}
        assert not ask("GET", "/access")["follows"]
        ask("DELETE", "/access/rules", {"rule": "allow 192.0.2.7"})
        ask("POST", "/access/rules", {"rule": "allow 192.0.2.8"})
        assert list(map(str, server.access.rules)) == ["deny any 1-2", "allow 192.0.2.8 all"]
        assert by_key(ask("GET", "/settings"))["rules"]["restart"]
        ask("POST", "/exports", {"rule": "1-2"})
        assert server.rules == ["1-1", "1-2"]
        ask("DELETE", "/exports", {"rule": "1-1"})
        assert server.rules == ["1-2"]


def test_what_a_client_would_get(ask: Asking, server: LocalServer) -> None:
    ask("PATCH", "/settings", {"exports": ["1-1", "1-2"], "rules": ["allow 192.0.2.7 1-1", "allow paired:ann 1-2"]})
    server.leases.reserve("1-1", 60, "192.0.2.9")

    def got(client: str) -> list[tuple[str, bool, str]]:
        answer = ask("POST", "/access/check", {"client": client})
        assert all(one["reason"] for one in answer["devices"] if not one["rule"])
        return [(one["busid"], one["allowed"], one["rule"]) for one in answer["devices"]]

    assert got("198.51.100.1") == [("1-1", False, ""), ("1-2", False, "")]
    assert got("192.0.2.7") == [("1-1", False, "lease"), ("1-2", False, "")]
    server.leases.release("1-1")
    assert got("::ffff:192.0.2.7") == [("1-1", True, "allow 192.0.2.7 1-1"), ("1-2", False, "")]
    assert got("paired:ann") == [("1-1", False, ""), ("1-2", True, "allow paired:ann 1-2")]
    assert got("local") == [("1-1", True, ""), ("1-2", True, "")]
    for client in ("any", "192.0.2.0/24", "paired", "what", ""):
        ask("POST", "/access/check", {"client": client}, 400)


def test_a_client_that_may_not_any_more_is_disconnected(ask: Asking, server: LocalServer) -> None:
    with importing(server):
        wait_until("it has it", lambda: [client.busid for client in server.clients] == ["1-1"])
        ask("POST", "/access/rules", {"rule": "deny local 1-1"})
        wait_until("it is disconnected", lambda: not server.clients)


def test_exports_are_changed_in_the_file_and_in_the_server(ask: Asking, server: LocalServer) -> None:
    assert ask("GET", "/exports") == {"exports": [{"rule": "1-1", "busids": ["1-1"]}], "follows": True}
    answer = ask("POST", "/exports", {"rule": "1234:5678"})
    assert answer["outcome"] == "1234:5678 is to be exported: 1-2"
    assert ask("POST", "/exports", {"rule": "1234:5678"})["outcome"] == "1234:5678 is already to be exported: 1-2"
    assert read_server_table().exports == ("1-1", "1234:5678")
    ask("DELETE", "/exports", {"rule": "1-1"})
    assert [info.busid for info in server.devices] == ["1-2"]
    ask("DELETE", "/exports", {"rule": "1-1"}, 404)
    ask("POST", "/exports", {"rule": "<script>"}, 400)


def test_leases(ask: Asking, server: LocalServer) -> None:
    ask.role = OPERATE
    assert ask("POST", "/leases", {"busid": "1-1", "seconds": 60, "client": "192.0.2.7"})["outcome"].startswith(
        "1-1 is reserved for 192.0.2.7 until "
    )
    assert "local from " in ask("POST", "/leases", {"busid": "1-1", "seconds": 60})["outcome"]
    (lease,) = ask("GET", "/leases")["leases"]
    assert [turn["client"] for turn in lease["turns"]] == ["192.0.2.7", "local"]
    ask("DELETE", "/leases?busid=1-1&client=local", None)
    ask("DELETE", "/leases", {"busid": "1-1"})
    assert ask("GET", "/leases")["leases"] == []
    ask("DELETE", "/leases", {"busid": "1-1"}, 404)
    ask("POST", "/leases", {"busid": "1-9", "seconds": 60}, 404)
    for seconds in (0, -1, "60", True, 1e400, None):
        ask("POST", "/leases", {"busid": "1-1", "seconds": seconds}, 400)
    ask("POST", "/leases", {"busid": "1-1", "seconds": 60, "client": "any"}, 400)


def test_tokens(ask: Asking) -> None:
    ask.side.tokens.make_first()
    made = ask("POST", "/tokens", {"name": "grafana", "role": "look"})
    assert made["link"] == f"{ask.base}/?token={made['token']}"
    found = ask.side.tokens.find(made["token"])
    assert found is not None
    assert (found.name, found.role) == ("grafana", "look")
    listed = ask("GET", "/tokens")
    assert [(one["name"], one["role"]) for one in listed["tokens"]] == [("admin", "administer"), ("grafana", "look")]
    assert made["token"] not in json.dumps(listed)
    ask("POST", "/tokens", {"name": "grafana", "role": "look"}, 409)
    for body in ({}, {"name": "x"}, {"name": "x", "role": "root"}, {"name": "a\nb", "role": "look"}, {"name": 1}):
        ask("POST", "/tokens", body, 400)
    ask("DELETE", "/tokens", {"name": "grafana"})
    ask("DELETE", "/tokens?name=grafana", None, 404)
    ask("DELETE", "/tokens", {"name": "admin"}, 409)


def test_the_system(ask: Asking, path: Path) -> None:
    found = ask("GET", "/system")
    assert found["configuration"] == str(path)
    assert 0 < found["memory"]["rss"] < found["memory"]["total"]
    assert found["uptime"] >= 0
    assert found["restart"] is False
    assert "part of another program" in ask("GET", "/restart", None, 501)["error"]
    ask("POST", "/restart", {"confirm": "x"}, 501)


# -- restarts


class Starting:
    """Starts servers of `bus`, but those that listen at a place that cannot be had."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus
        self.restart = Restart(self.settings, self.start)

    def settings(self) -> ServerTable:
        table = read_server_table()
        return table if table.listen else ServerTable(listen=("127.0.0.1:0",), max_clients=table.max_clients)

    def start(self, settings: ServerTable) -> LocalServer:
        if "203.0.113.1" in settings.listen:
            raise CannotListen("203.0.113.1: there is no such address")
        return LocalServer(settings, self._bus)


def test_a_restart_is_asked_for_twice_and_happens_after_the_answer(path: Path, bus: FakeBus) -> None:
    starting = Starting(bus)
    first, _ = starting.restart.start()
    ask = Asking(WebSide(first))
    assert ask("GET", "/system")["restart"] is True
    with first, importing(first):
        wait_until("it has it", lambda: [client.busid for client in first.clients] == ["1-1"])
        offered = ask("GET", "/restart")
        assert "1 client will be disconnected" in offered["text"]
        ask("POST", "/restart", {"confirm": "guess"}, 400)
        assert not starting.restart.requested
        ask("PATCH", "/settings", {"max-clients": 9})
        assert ask("POST", "/restart", {"confirm": offered["confirm"]})["ok"]
        wait_until("it is requested", lambda: starting.restart.requested)
        first.close()
    second, settings_then = starting.restart.start()
    with second, importing(second):
        assert settings_then.max_clients == 9
        assert not starting.restart.requested


@pytest.mark.parametrize(
    "made_wrong",
    [
        lambda path: path.write_text(path.read_text() + 'listen = ["203.0.113.1"]\nallow = ["192.0.2.0/24"]\n'),
        lambda path: path.write_text(path.read_text() + 'listen = ["203.0.113.1"]\nallow-public = true\n'),
        lambda path: path.write_text("[server\n"),
    ],
)
def test_a_restart_that_fails_leaves_the_server_as_it_was(
    made_wrong: Callable[[Path], object], path: Path, bus: FakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    starting = Starting(bus)
    with starting.restart.start()[0] as first:
        address = first.addresses
    text = path.read_text()
    made_wrong(path)
    if path.read_text() == "[server\n":
        with pytest.raises(UsbipError):  # nor does it start as before: what is exported is in that file
            starting.restart.start()
        path.write_text(text)
    else:
        with starting.restart.start()[0] as again:
            assert again.addresses[0][0] == address[0][0]
        assert "it goes on as before" in caplog.text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[server]\n", "nothing is to be exported"),
        ('[server]\nexports = []\nlisten = ["0.0.0.0"]\n', "other machines can connect"),
        ('[server]\nexports = []\nrotate = ["files:2"]\n', "rotate is for files"),
        ('[server]\nexports = []\nclient-ca = "/x"\n', "client-ca is for connections within TLS"),
    ],
)
def test_a_restart_that_could_not_succeed_is_refused(text: str, sentence: str, path: Path, bus: FakeBus) -> None:
    with serve(["1-1"], listen="127.0.0.1:0", bus=bus) as server:
        server.restart = Restart(read_server_table)
        ask = Asking(WebSide(server))
        path.write_text(text)
        assert sentence in ask("GET", "/restart", None, 400)["error"]
    check_settings(ServerTable(exports=("all",), listen=("0.0.0.0",), allow_public=True, tls=("*",)))


def test_two_who_change_the_same_list_lose_nothing(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "_TIMEOUT", 120.0)  # a busy machine may let one of them wait long

    def add(first: int) -> None:
        for port in range(first, first + 10):
            ask("POST", "/exports", {"rule": f"3-{port}"})

    threads = [threading.Thread(target=add, args=(first,)) for first in (10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_server_table().exports or ()) == {"1-1", *(f"3-{port}" for port in range(10, 40))}
    assert json.dumps(ask("GET", "/exports"))
