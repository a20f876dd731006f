"""Many questions at once: bounded, in order, and nothing waits for what does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.scripted_dashboard import TOKEN, scripted_dashboard
from tests.fakes.scripted_server import ScriptedServer, answer_devlist
from tests.waiting import wait_until
from usbip_capture.errors import ServerUnreachable, UsbipError
from usbip_capture.fleet.answers import BY_DASHBOARD, BY_USBIP
from usbip_capture.fleet.asking import AT_ONCE, Asking, Question, ask_all
from usbip_capture.fleet.members import Member
from usbip_capture.net.address import split_place
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.dashboards import Dashboard

OVERVIEW = {"version": "9.9", "uptime": 61.5, "clients": 2, "throughput": {"in": 1000, "out": 5}}
DEVICE = {"busid": "1-1", "vid_pid": "303a:4001", "product": "Board", "serial": "S1", "state": "in use",
          "exported": True, "client": "192.0.2.7:50000", "rate_in": 1000, "errors": 3}  # fmt: skip
ANSWERS = {"/api/v1/overview": OVERVIEW, "/api/v1/devices": {"devices": [DEVICE, {"busid": "usb1", "hub": True}]}}


def questions(asking: Asking[int]) -> list[tuple[int, Any]]:
    """All answers, by the number of the server."""
    found = []
    while asking.open:
        came = asking.next()
        if came is not None:
            found.append((came[0].number, came[1]))
    return sorted(found, key=lambda one: one[0])


def dashboard_of(url: str, timeout: float = 20.0) -> Dashboard:
    port = int(url.rpartition(":")[2])
    return Dashboard("127.0.0.1", port, token=TOKEN, timeout=timeout)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


def test_so_many_at_once_and_no_more() -> None:
    running, most, lock, go_on = 0, 0, threading.Lock(), threading.Event()

    def ask() -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go_on.wait(30)
        with lock:
            running -= 1
        return 7

    asking: Asking[int] = Asking()
    for number in range(3 * AT_ONCE):
        asking.add(Question(number, "", ask, 60.0, "x"))
    wait_until("as many as may be are asked", lambda: running == AT_ONCE, 30)
    go_on.set()
    assert questions(asking) == [(number, 7) for number in range(3 * AT_ONCE)]
    assert most == AT_ONCE
    wait_until("its threads have ended", lambda: not [t for t in threading.enumerate() if t.name == "usbip-fleet"], 30)


def test_one_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    asking: Asking[int] = Asking()
    asking.add(Question(0, "", lambda: int(released.wait(60)), 0.0, "rack-7"))
    asking.add(Question(1, "", lambda: 1, 60.0, "pi"))
    (_, late), (_, other) = questions(asking)
    released.set()
    assert isinstance(late, ServerUnreachable)
    assert "rack-7 does not answer within 0 s" in str(late)
    assert other == 1


def test_errors_of_servers_are_answers_and_bugs_are_raised() -> None:
    def fails(error: Exception) -> int:
        raise error

    asking: Asking[int] = Asking()
    asking.add(Question(0, "", lambda: fails(UsbipError("no")), 60.0, "pi"))
    assert str(questions(asking)[0][1]) == "no"
    asking.add(Question(0, "", lambda: fails(ZeroDivisionError("a bug")), 60.0, "pi"))
    with pytest.raises(ZeroDivisionError):
        questions(asking)


def test_without_threads_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread:
        def __init__(self, **given: object) -> None: ...

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("usbip_capture.fleet.asking.threading.Thread", NoThread)
    with pytest.raises(UsbipError, match="no server can be asked: can't start new thread"):
        Asking[int]().add(Question(0, "", lambda: 0, 60.0, "pi"))


def test_the_dashboard_knows_more() -> None:
    with scripted_dashboard(ANSWERS) as made, ScriptedServer(answer_devlist) as server:
        member = Member("pi", ServerAddress("127.0.0.1", server.port, 20.0), dashboard_of(made.url))
        (found,) = ask_all([member])
    assert (found.way, found.version, found.uptime, found.clients) == (BY_DASHBOARD, "9.9", 61, 2)
    assert (found.rate_in, found.rate_out, found.errors, found.error, found.problem) == (1000, 5, 3, None, None)
    (device,) = found.devices
    assert (device.busid, device.client, device.state, device.rate_in) == ("1-1", "192.0.2.7:50000", "in use", 1000)
    assert made.asked == ["/api/v1/overview", "/api/v1/devices"]


@pytest.mark.parametrize("refuses", [True, False])
def test_the_list_stands_in_for_a_dashboard_that_refuses_or_is_silent(refuses: bool, silent: int) -> None:
    with scripted_dashboard({}) as made, ScriptedServer(answer_devlist) as server:
        dashboard = dashboard_of(made.url) if refuses else dashboard_of(f":{silent}", 1.0)
        member = Member("pi", ServerAddress("127.0.0.1", server.port, 20.0), dashboard)
        (found,) = ask_all([member])
    assert (found.way, found.error, found.clients) == (BY_USBIP, None, None)
    assert [device.busid for device in found.devices] == ["1-1"]
    assert ("refuses" if refuses else "does not answer") in str(found.problem)


def test_why_neither_answers(silent: int) -> None:
    with scripted_dashboard({}) as made:
        nothing = ServerAddress("127.0.0.1", 1, 20.0)
        refused, dead, empty = ask_all(
            [
                Member("a", nothing, dashboard_of(made.url)),
                Member("b", ServerAddress("127.0.0.1", silent, 0.3)),
                Member("c"),
            ]
        )
    assert "refuses: /api/v1/overview is refused" in str(refused.error)
    assert "does not answer" in str(dead.error)
    assert str(empty.error) == "c has no address"


def test_a_dead_one_holds_up_no_other(silent: int) -> None:
    """More than are asked at once are dead, and yet all others answer."""
    dead = [Member(f"dead-{at}", ServerAddress("127.0.0.1", silent, 0.5)) for at in range(AT_ONCE + 5)]
    with ScriptedServer(answer_devlist) as server:
        alive = [Member(f"pi-{at}", ServerAddress("127.0.0.1", server.port, 20.0)) for at in range(5)]
        found = ask_all([*dead, *alive])
    assert [answer.member.name for answer in found] == [member.name for member in (*dead, *alive)]
    assert [answer.member.name for answer in found if answer.error is None] == [f"pi-{at}" for at in range(5)]


@pytest.mark.parametrize("wrong", [None, 5, "x", [], {"devices": 5}, {"devices": [None, 5, []]}, {"throughput": []}])
def test_answers_that_mean_nothing(wrong: Any) -> None:
    with scripted_dashboard({"/api/v1/overview": wrong, "/api/v1/devices": wrong}) as made:
        (found,) = ask_all([Member("pi", None, dashboard_of(made.url))])
    assert found.error is not None or (found.version, found.devices) == ("", ())


def test_numbers_and_texts_of_strangers_have_bounds() -> None:
    huge = {"busid": "x" * 5000, "rate_in": 10**400, "errors": -1, "urbs": True, "bytes_in": "5", "state": None}
    listed = "{" + f'"devices": [{", ".join(["{}"] * 3000)}]' + "}"
    overview = '{"version": 5, "uptime": NaN, "clients": Infinity, "throughput": {"in": -Infinity}}'
    with scripted_dashboard({"/api/v1/overview": overview, "/api/v1/devices": {"devices": [huge]}}) as made:
        (found,) = ask_all([Member("pi", None, dashboard_of(made.url))])
    (device,) = found.devices
    assert (len(device.busid), device.rate_in, device.errors, device.urbs, device.bytes_in) == (256, 0, 0, 0, 0)
    assert (found.version, found.uptime, found.clients, found.rate_in) == ("", 0, 0, 0)
    with scripted_dashboard({"/api/v1/overview": {}, "/api/v1/devices": listed}) as made:
        (found,) = ask_all([Member("pi", None, dashboard_of(made.url))])
    assert len(found.devices) == 1024


def test_an_address_by_ssh_has_time_to_log_in() -> None:
    from usbip_capture.fleet.questions import allowed

    assert split_place("ssh://pi")[0] == "ssh"
    assert allowed(ServerAddress("pi", timeout=2.0, scheme="ssh")) > allowed(ServerAddress("pi", timeout=2.0)) == 4.0
