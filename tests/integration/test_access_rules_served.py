"""Who may have which device at a running server: lists, imports, sessions, commands, and files that are damaged."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.local_bus import FakeBus
from tests.fakes.raw_client import RawClient
from tests.waiting import wait_until
from usbip_capture import LocalServer, serve
from usbip_capture.access.rules import AccessRules
from usbip_capture.cli import exits
from usbip_capture.cli.main import main
from usbip_capture.device import Device
from usbip_capture.errors import FileFormatError, LocalProtocolError
from usbip_capture.server.connection import Connection
from usbip_capture.server.events import ENDED, REFUSED
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.usb.info import InterfaceInfo
from usbip_capture.wire.structs import OpStatus

ANY = "127.0.0.1:0"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bus() -> FakeBus:
    made = FakeBus()
    made.plug("1-1", serial="A B")
    made.plug("1-2", (0x0403, 0x6001))
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


@pytest.fixture
def followed(bus: FakeBus) -> Iterator[LocalServer]:
    """Exports and rules are those of the configuration."""
    configure('[server]\nexports = ["all"]\n')
    with serve(listen=ANY, name="bench", bus=bus) as made:
        yield made


def configure(text: str) -> Path:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listed(server: LocalServer) -> list[str]:
    return [info.busid for info in ServerAddress.parse(server.address, timeout=20.0).devices()]


def attach(server: LocalServer, busid: str) -> RawClient:
    return RawClient(server.addresses[0], busid)


def status(server: LocalServer, busid: str) -> int:
    """What an import is answered."""
    with attach(server, busid) as client:
        return int(client.status)


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("deny any 1-1", ["1-2"]),
        ("deny 127.0.0.0/8 0403:6001", ["1-1"]),
        ("deny local 303a:4001:A B", ["1-2"]),
        ("deny any 303a:4001:A", ["1-1", "1-2"]),
        ("deny ::ffff:127.0.0.1 class:08", []),
        ("deny paired all", ["1-1", "1-2"]),
    ],
)
def test_what_a_client_may_not_have_is_not_listed_and_not_there(rule: str, left: list[str], bus: FakeBus) -> None:
    with serve(["all"], listen=ANY, rules=[rule], bus=bus) as server:
        assert listed(server) == left
        for busid in ("1-1", "1-2"):
            with attach(server, busid) as client:
                assert client.status == (OpStatus.OK if busid in left else OpStatus.NODEV)
                if client.status:
                    assert client.is_at_end()
        refused = [event for event in server.events.after(0, 100) if event.kind == REFUSED]
        assert [(event.busid, event.rule) for event in refused] == [
            (busid, str(next(iter(AccessRules("open", [rule]))))) for busid in ("1-1", "1-2") if busid not in left
        ]


def test_who_may_have_nothing_cannot_even_connect(bus: FakeBus) -> None:
    with serve(["all"], listen=ANY, rules=["deny local"], bus=bus) as server:
        with socket.create_connection(server.addresses[0], 20) as sock:
            assert sock.recv(1) == b""
        assert server.events.after(0, 100)[-1].rule == "deny local all"
    with pytest.raises(LocalProtocolError):
        serve(["all"], listen=ANY, rules=["permit any"], bus=bus)
    with pytest.raises(LocalProtocolError, match=r"other machines can connect to 0\.0\.0\.0:0"):
        serve(["all"], listen="0.0.0.0:0", rules=["allow paired", "deny any"], bus=bus)


def test_a_change_ends_what_it_does_not_allow_any_more_at_once_and_nothing_else(
    followed: LocalServer, run: Run, bus: FakeBus
) -> None:
    with attach(followed, "1-1") as first, attach(followed, "1-2") as second:
        assert run("access", "deny", "127.0.0.1", "1-1")[0] == 0
        assert first.is_at_end()
        assert bus.plugged["1-1"].opened[0].released.wait(30)
        assert second.ask("8006000100001200").status == 0
        assert [client.busid for client in followed.clients if client.busid == "1-2"] == ["1-2"]
        ended = [event for event in followed.events.after(0, 100) if event.kind == ENDED]
        assert [(event.busid, event.by) for event in ended] == [("1-1", "user")]
        assert "the rule `deny 127.0.0.1 1-1` denies it" in ended[0].text
        assert run("access", "open")[0] == 0  # deny wins also then
        assert status(followed, "1-1") == OpStatus.NODEV
        assert run("access", "remove", "deny", "127.0.0.1", "1-1")[0] == 0
        with attach(followed, "1-1") as again:
            assert again.status == OpStatus.OK


def test_commands_change_the_file_and_report_what_is_in_force(followed: LocalServer, run: Run) -> None:
    path = configuration_path()
    assert run("access", "show")[1].splitlines() == [f"closed, in {path}", "so it is for the server bench"]
    assert run("access", "allow", "192.0.2.9/24", "303a:4001", "1-2")[1].splitlines() == [
        f"allow 192.0.2.0/24 303a:4001: added to {path}",
        f"allow 192.0.2.0/24 1-2: added to {path}",
        "the server bench is closed now, with 2 rules",
    ]
    assert f"allow 192.0.2.0/24 1-2: already in {path}\n" in run("access", "allow", "192.0.2.0/24", "1-2")[1]
    assert run("access", "deny", "paired:ann")[1].startswith(f"deny paired:ann all: added to {path}\n")
    assert f"deny any all: not in {path}" in run("access", "remove", "deny", "any")[1]
    assert run("access", "open")[1].splitlines()[0] == f"access is open, in {path}"
    assert run("access", "open")[1].splitlines()[0] == f"access is already open, in {path}"
    shown = json.loads(run("access", "show", "--json")[1])
    rules = ["allow 192.0.2.0/24 303a:4001", "allow 192.0.2.0/24 1-2", "deny paired:ann all"]
    assert shown["servers"] == [{"name": "bench", "mode": "open", "rules": rules, "paired": []}]
    assert (shown["mode"], shown["rules"]) == ("open", rules)
    assert followed.access.rules == AccessRules("open", rules)
    assert "\naccess: open, with 3 rules\n" in run("status")[1]


@pytest.mark.parametrize(
    "words",
    [
        ["allow"], ["deny"], ["allow", "pi"], ["allow", "any", "pi"], ["show", "any"], ["open", "1-1"], ["close", "x"],
        ["remove"], ["remove", "any"], ["remove", "allow"], ["allow", "any", "--json"], ["allow", "192.0.2.0/33"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_meant_changes_nothing(words: list[str], followed: LocalServer, run: Run) -> None:
    before = Path(configuration_path()).read_bytes()
    code, said, complaint = run("access", *words)
    assert (code, said) == (exits.USAGE, "")
    assert complaint.count("\n") == 1
    assert Path(configuration_path()).read_bytes() == before


def test_without_a_server_only_the_file_is_written(run: Run) -> None:
    code, said, _ = run("access", "allow", "2001:db8::/32")
    assert code == 0
    assert said.splitlines()[-1] == "no server of yours is running: it holds from the next `usbip-capture serve` on"
    assert Path(configuration_path()).read_text() == '[server]\nrules = ["allow 2001:db8::/32 all"]\n'


def test_a_server_with_rules_of_its_own_follows_if_it_is_meant(bus: FakeBus, run: Run) -> None:
    with serve(["1-1"], listen=ANY, name="bench", bus=bus) as bench, attach(bench, "1-1") as client:
        assert run("access", "deny", "any")[1].splitlines()[-1] == "the server bench is closed now, with 1 rule"
        assert client.is_at_end()
        with serve(["1-1"], listen=ANY, name="other", bus=FakeBus()) as other:
            said = run("access", "open")[1]
            assert "the server bench has rules of its own; with --server bench it follows" in said
            assert (bench.access.rules.mode, other.access.rules) == ("closed", AccessRules())


def test_what_was_given_by_hand_is_forgotten_when_it_is_changed(bus: FakeBus, run: Run) -> None:
    configure('[server]\nexports = ["all"]\n')
    networks = ["192.0.2.0/24", "198.51.100.0/24"]
    with serve(listen=ANY, name="bench", allow=networks, allow_public=True, bus=bus) as server:
        assert server.access.rules == AccessRules("open", [f"allow {network}" for network in networks])
        run("access", "deny", "paired")
        assert server.access.rules.mode == "open"
        assert run("access", "close")[1].splitlines()[-1] == "the server bench is closed now, with 3 rules"
        run("access", "remove", "allow", "192.0.2.0/24")
        assert [str(rule) for rule in server.access.rules] == ["deny paired all", "allow 198.51.100.0/24 all"]


def test_an_import_that_is_under_way_during_a_change_is_refused(
    bus: FakeBus, followed: LocalServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, going_on = threading.Event(), threading.Event()
    plugged = bus.plugged["1-1"]
    opened = plugged.open

    def slow(*, reset: bool = False) -> Device:
        opening.set()
        assert going_on.wait(30)
        return opened(reset=reset)

    monkeypatch.setattr(plugged, "open", slow)
    found: list[int] = []

    def import_it() -> None:
        with attach(followed, "1-1") as client:
            found.append(client.status)

    thread = threading.Thread(target=import_it)
    thread.start()
    assert opening.wait(30)
    run("access", "deny", "local", "1-1")
    going_on.set()
    thread.join(30)
    assert found == [OpStatus.NODEV]
    assert plugged.opened[0].released.wait(30)


def test_a_running_server_never_opens_for_a_file_that_is_cut_at_any_byte(followed: LocalServer) -> None:
    whole = b"""\
[server]
exports = ["all"]
rules = ["deny 127.0.0.1 1-1", "allow any 1-2"]
access = "open"
max-clients = 30
"""
    path = configure(whole.decode())
    assert followed.reload()
    with attach(followed, "1-2") as session:
        read_well = 0
        for length in (*range(len(whole)), len(whole)):
            before = followed.access.rules
            path.write_bytes(whole[:length])
            if not followed.reload():
                assert followed.access.rules is before
            elif followed.devices:
                read_well += 1
                with_rules = b'1-2"]' in whole[:length]
                assert followed.access.rules.mode == "closed" or with_rules
            if followed.access.rules.mode == "open":
                assert status(followed, "1-1") == OpStatus.NODEV
        assert read_well > 3
        assert session.is_at_end()  # nothing was exported meanwhile
    assert followed.access.rules == AccessRules("open", ["deny 127.0.0.1 1-1", "allow any 1-2"])


def test_a_damaged_file_is_refused_at_the_start_and_by_commands(bus: FakeBus, run: Run) -> None:
    path = configure('[server]\nexports = ["all"]\nrules = [\n  "deny 192.0.2.7",\n  "alow 192.0.2.0/24",\n]\n')
    with pytest.raises(FileFormatError, match=r"line 5: 'alow 192\.0\.2\.0/24' is not a rule of access"):
        serve(listen=ANY, bus=bus)
    for words in (["access", "show"], ["access", "allow", "any"], ["access", "open"], ["serve", "--all"]):
        code, _, complaint = run(*words)
        assert code == exits.FAILED
        assert f"{path}, line 5: " in complaint
        assert complaint.count("\n") == 1


def test_while_the_server_runs_a_damaged_file_leaves_the_last_good_rules(
    followed: LocalServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run("access", "deny", "any", "1-1")
    path = configure('[server]\nexports = ["all"]\nrules = ["deny any 1-1\n')
    assert not followed.reload()
    assert listed(followed) == ["1-2"]
    assert any(str(path) in text and "line" in text for text in caplog.messages)


def test_a_rule_of_a_class_is_about_all_that_a_device_can_become(bus: FakeBus) -> None:
    """Not only about the configuration that is active: the client may choose another one."""
    bus.plugged.clear()
    plugged = bus.plug("1-1", classes=(3,))
    plugged.all_interfaces = (*plugged.info.interfaces, InterfaceInfo(8, 6, 80))
    with serve(["all"], listen=ANY, rules=["deny any class:08"], bus=bus) as server:
        assert listed(server) == []
        assert status(server, "1-1") == OpStatus.NODEV


def test_a_device_whose_serial_number_is_not_known_may_be_the_one_that_is_denied(bus: FakeBus) -> None:
    for busid, serial, known in (("1-1", "", False), ("1-2", "", True), ("1-3", "ABC ", True), ("1-4", "XYZ", True)):
        bus.plug(busid, serial=serial).serial_is_known = known
    with serve(["all"], listen=ANY, rules=["deny any 303a:4001:ABC"], bus=bus) as server:
        assert listed(server) == ["1-2", "1-4"]


def test_one_session_that_cannot_be_asked_about_leaves_the_others_to_their_rules(
    bus: FakeBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(["all"], listen=ANY, rules=[], bus=bus) as server:
        first, second = attach(server, "1-1"), attach(server, "1-2")
        with first, second:
            check = Connection.check

            def failing(self: Connection, by: str) -> None:
                if self.client.busid == "1-1":
                    raise AttributeError("check")
                check(self, by)

            monkeypatch.setattr(Connection, "check", failing)
            server.access.set("closed", ["deny any"])
            wait_until("the other one is ended", lambda: [one.busid for one in server.clients] == ["1-1"])
    assert "whether client" in caplog.text
