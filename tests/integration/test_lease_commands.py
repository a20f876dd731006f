"""Devices reserved with the real commands, a server that runs, and clients of several addresses."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.local_bus import FakeBus
from tests.fakes.raw_client import RawClient
from tests.programs.commands import run_line
from tests.waiting import wait_until
from usbip_capture import LocalServer, serve
from usbip_capture.cli import exits
from usbip_capture.errors import FileFormatError
from usbip_capture.server.events import ENDED, LEASED, REFUSED
from usbip_capture.serving.lease_file import leases_path
from usbip_capture.system.local_time import local_time
from usbip_capture.wire.structs import OpStatus

ANY = "127.0.0.1:0"
#: Both are this machine's, which Linux lets any program have; a lease is for one of them.
ANN, BOB = "127.0.0.2", "127.0.0.3"
GET_DEVICE = "8006000100001200"

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/net/tcp"), reason="needs Linux: all of 127.0.0.0/8 is its own"
)
Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def bus() -> FakeBus:
    made = FakeBus()
    made.plug("1-1")
    return made


@pytest.fixture
def server(bus: FakeBus) -> Iterator[LocalServer]:
    with serve(["all"], listen=ANY, name="bench", bus=bus) as made:
        yield made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A command line in a process of its own, with the configuration and the sockets of this test."""

    def ran(line: str) -> tuple[int, list[str], str]:
        environment = {name: os.environ[name] for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR") if name in os.environ}
        done: subprocess.CompletedProcess[str] = run_line(f"usbip-capture {line}", tmp_path, **environment)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return ran


def client(server: LocalServer, source: str) -> RawClient:
    return RawClient(server.addresses[0], source=source)


def is_served(one: RawClient) -> bool:
    return one.ask(GET_DEVICE).status == 0


def test_a_device_is_for_the_client_that_has_reserved_it(
    server: LocalServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    code, said, _ = run(f"reserve 1-1 --for 2h --client {ANN}")
    (turn,) = server.leases.turns("1-1")
    until = local_time(turn.until, time.time())
    assert (code, said) == (0, [f"1-1 is reserved for {ANN} until {until}"])
    assert turn.seconds == 7200
    with client(server, BOB) as refused:
        assert refused.status == OpStatus.DEV_BUSY
        assert refused.is_at_end()
    (event,) = [event for event in server.events.after(0, 1000) if event.kind == REFUSED]
    assert (event.busid, event.rule) == ("1-1", "lease")
    assert any(
        f"client {BOB}:" in text and text.endswith(f"is refused: 1-1: it is reserved for {ANN} until {until}")
        for text in caplog.messages
    )
    with client(server, ANN) as allowed:
        assert is_served(allowed)
    assert run("release 1-1") == (0, ["1-1 is not reserved any more"], "")
    wait_until("it is free", lambda: not server.clients)
    with client(server, BOB) as now_allowed:
        assert is_served(now_allowed)


def test_who_has_it_loses_it_when_it_is_reserved_for_another(
    server: LocalServer, bus: FakeBus, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with client(server, ANN) as user:
        assert is_served(user)
        assert run(f"reserve 1-1 --for 1h --client {ANN}")[0] == 0  # its own
        assert is_served(user)
        assert run(f"reserve 1-1 --for 1h --client {BOB}")[0] == 0  # which comes next
        assert is_served(user)
        code, said, _ = run("release 1-1")
        assert code == 0
        assert said[0].startswith(f"1-1 is reserved for {BOB} now, until ")
        assert user.is_at_end()
    assert bus.plugged["1-1"].opened[-1].released.wait(20)
    assert any("is disconnected: 1-1: it is reserved for" in text for text in caplog.messages)
    (ended,) = [event for event in server.events.after(0, 1000) if event.kind == ENDED]
    assert (ended.busid, ended.by) == ("1-1", "user")
    assert ended.peer is not None
    assert ended.peer.host == ANN
    wait_until("it is free", lambda: not server.clients)
    with client(server, ANN) as refused, client(server, BOB) as following:
        assert refused.status == OpStatus.DEV_BUSY
        assert is_served(following)


def test_the_next_turn_begins_by_itself(server: LocalServer, run: Run) -> None:
    run(f"reserve 1-1 --for 1h --client {ANN}")
    run(f"reserve 1-1 --for 1h --client {BOB}")
    with client(server, ANN) as user:
        assert is_served(user)
        assert run(f"reserve 1-1 --for 1s --client {ANN}")[0] == 0
        assert user.is_at_end()
    wait_until("it is free", lambda: not server.clients)
    with client(server, BOB) as following:
        assert is_served(following)
    found = server.events.after(0, 1000)
    assert [event.text.split()[1] for event in found if event.kind == LEASED] == [ANN, ANN, BOB]
    assert [event.by for event in found if event.kind == ENDED] == ["server"]


def test_a_reservation_that_is_over_ends_no_session(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.leases.reserve("1-1", 0.3, ANN)
    with client(server, ANN) as user:
        assert not user.status
        wait_until("it is over", lambda: "1-1 is not reserved any more" in caplog.messages)
        assert is_served(user)


def test_it_is_for_this_machine_without_a_client(server: LocalServer, run: Run) -> None:
    assert run("reserve 1-1 --for 1m")[1][0].startswith("1-1 is reserved for local until ")
    with client(server, ANN) as allowed:
        assert is_served(allowed)


def test_who_comes_next_is_shown(server: LocalServer, bus: FakeBus, run: Run) -> None:
    bus.plug("1-2", (0x0403, 0x6001))
    wait_until("it is exported", lambda: len(server.devices) == 2)
    assert run("reserve --list") == (0, [], "usbip-capture: nothing is reserved\n")
    assert run("reserve --list --json")[1] == ["[]"]
    run(f"reserve 1-1 --for 90m --client {ANN}")
    code, said, _ = run(f"reserve 1-1 --for 1d --client {BOB}")
    first, second = server.leases.turns("1-1")
    now = time.time()
    at, later = local_time(first.until, now), local_time(second.until, now)
    assert (code, said) == (0, [f"1-1 is reserved for {BOB} from {at} until {later}, after {ANN}"])
    title, *rows = run("reserve --list")[1]
    assert title.split() == ["device", "client", "from", "until"]
    assert [row.split()[:2] for row in rows] == [["1-1", ANN], ["1-1", BOB]]
    assert rows[1].endswith(later)
    listed = json.loads("".join(run("reserve 1-1 --list --json")[1]))
    assert listed == [
        {"busid": "1-1", "client": ANN, "begins": first.begins, "until": first.until},
        {"busid": "1-1", "client": BOB, "begins": second.begins, "until": second.until},
    ]
    assert run("reserve 1-2 --list") == (0, [], "usbip-capture: 1-2 is not reserved\n")
    with client(server, ANN) as user:
        assert is_served(user)
        state = f"for {ANN} until {at}, then {BOB}"
        status = run("status")[1]
        assert status[-2].endswith(f"  client {ANN}:{user.sock.getsockname()[1]}, reserved {state}")
        assert status[-1].endswith("  free")
        title, row = run("clients")[1]
        assert title.endswith("  reserved")
        assert row.endswith(f"  {state}")
        assert json.loads("".join(run("clients --json")[1]))[0]["leases"] == [
            {name: value for name, value in turn.items() if name != "busid"} for turn in listed
        ]
    assert run(f"release 1-1 --client {BOB}")[1][0].startswith(f"1-1 is reserved for {ANN} now, until ")
    assert [turn.holder for turn in server.leases.turns("1-1")] == [ANN]


def test_it_outlives_the_server_and_the_device(bus: FakeBus, run: Run) -> None:
    with serve(["all"], listen=ANY, bus=bus) as server:
        run(f"reserve 1-1 --for 1h --client {ANN}")
        bus.unplug("1-1")
        wait_until("it is not exported", lambda: not server.devices)
        bus.plug("1-1", (0x0403, 0x6001))  # the port is reserved, whatever is there
        wait_until("it is exported", lambda: server.devices)
        with client(server, BOB) as refused:
            assert refused.status == OpStatus.DEV_BUSY
    with serve(["all"], listen=ANY, bus=bus) as server:
        with client(server, BOB) as refused:
            assert refused.status == OpStatus.DEV_BUSY
        with client(server, ANN) as allowed:
            assert is_served(allowed)


def test_no_server_starts_on_a_damaged_file(bus: FakeBus, run: Run) -> None:
    with serve(["all"], listen=ANY, bus=bus) as server:
        server.leases.reserve("1-1", 3600, ANN)
        whole = Path(leases_path()).read_bytes()
        Path(leases_path()).write_bytes(whole[:40])
        code, said, complaint = run(f"reserve 1-1 --for 2h --client {BOB}")
        assert (code, said) == (exits.FAILED, [])
        assert complaint.startswith(f"usbip-capture: {leases_path()} is damaged: ")
        assert complaint.count("\n") == 1
        with client(server, BOB) as refused:
            assert refused.status == OpStatus.DEV_BUSY
    with pytest.raises(FileFormatError, match="is damaged"):
        serve(["all"], listen=ANY, bus=bus)
    code, _, complaint = run("serve --all --listen 127.0.0.1:0")
    assert code == exits.FAILED
    assert complaint.startswith(f"usbip-capture: {leases_path()} is damaged: ")
    assert complaint.count("\n") == 1
    assert Path(leases_path()).read_bytes() == whole[:40]


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("reserve", exits.USAGE, "name a device and a time"),
        ("reserve 1-1", exits.USAGE, "name a device and a time"),
        ("reserve 1-1 --for 2", exits.USAGE, "must be a time such as 2h, 90m, 1d or 1h30m, not '2'"),
        ("reserve 1-1 --for 0h", exits.USAGE, "must be a time such as"),
        ("reserve 1-1 --for 31d", exits.USAGE, "for up to 30 days at a time"),
        ("reserve 1-1 --for 999999999d", exits.USAGE, "for up to 30 days at a time"),
        ("reserve 1-1 --for 1h --client nobody", exits.USAGE, "'nobody' is not a client"),
        ("reserve 1-9 --for 1h", exits.DEVICE, "'1-9' is not exported: there is 1-1"),
        ("reserve --list --for 1h", exits.USAGE, "--list only shows what is reserved"),
        ("release 1-1", exits.DEVICE, "1-1 is not reserved"),
        ("release 1-1 --client nobody", exits.USAGE, "'nobody' is not a client"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(server: LocalServer, run: Run, line: str, code: int, sentence: str) -> None:
    got, said, complaint = run(line)
    assert (got, said) == (code, [])
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert not server.leases.busids()


@pytest.mark.parametrize("line", ["reserve 1-1 --for 1h", "reserve --list", "release 1-1"])
def test_none_is_running(run: Run, line: str) -> None:
    code, said, complaint = run(line)
    assert (code, said) == (exits.NOT_RUNNING, [])
    assert "no server of yours is running" in complaint


def test_moments_of_another_day_have_their_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "localtime", time.gmtime)
    assert local_time(1_800_000_000, 1_800_000_000) == "08:00:00"
    assert local_time(1_800_000_000, 1_800_100_000) == "2027-01-15 08:00"
