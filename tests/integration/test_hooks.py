"""Hooks of a server: called in order for what happens, never waited for by a client, and their outcome an event."""

from __future__ import annotations

import json
import logging
import stat
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.local_bus import FakeBus, bus_with, import_once
from tests.fakes.web_hook import web_hook
from tests.waiting import wait_until
from usbip_capture import serve
from usbip_capture.cli import commands
from usbip_capture.cli import serve as command
from usbip_capture.errors import ImportRefused, LocalProtocolError, UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.server.events import HOOK_DONE, HOOK_FAILED, IMPORTED, REFUSED, RELEASED, Event, Events
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.serving.hooks import WAITING, Hooks

ANY = "127.0.0.1:0"
#: What a device may call itself.
SERIAL = '\x1b[2J"$(id)`id`\n'


@pytest.fixture
def bus() -> FakeBus:
    return bus_with(SERIAL)


def recorder(folder: Path) -> tuple[Path, Path]:
    """A program that appends what it gets to a file, a line of JSON for each run."""
    program, written = folder / "the program", folder / "written"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "got = [sys.argv[1:], {n: v for n, v in os.environ.items() if n.startswith('USBIP_')}, json.load(sys.stdin)]\n"
        f"with open({str(written)!r}, 'a') as file:\n    file.write(json.dumps(got) + '\\n')\n"
    )
    program.chmod(stat.S_IRWXU)
    return program, written


def outcomes(events: Events) -> list[Event]:
    return [event for event in events.after(0, 1000) if event.kind in (HOOK_DONE, HOOK_FAILED)]


def test_a_program_is_called_in_order(bus: FakeBus, tmp_path: Path) -> None:
    program, written = recorder(tmp_path)
    hooks = [f"attach,detach='{program}' --quiet \"a b\""]
    with serve(["1-1"], listen=ANY, bus=bus, name="lab", hooks=hooks) as server:
        import_once(server)
        wait_until("both were called", lambda: len(outcomes(server.events)) == 2, 60)
        events = server.events
    calls = [json.loads(line) for line in written.read_text().splitlines()]
    assert [given["event"] for _, _, given in calls] == ["attach", "detach"]
    for argv, environment, given in calls:
        assert argv == ["--quiet", "a b"]
        assert (given["server"], given["busid"], given["client"]) == ("lab", "1-1", "127.0.0.1")
        assert given["device"] == f"303a:4001:{SERIAL}"
        assert environment["USBIP_DEVICE"] == '303a:4001:\\x1b[2J"$(id)`id`\\n'
        assert (environment["USBIP_EVENT"], environment["USBIP_KIND"]) == (given["event"], given["kind"])
        assert environment["USBIP_TIMES"] == ""
    done = outcomes(events)
    assert [(event.kind, event.busid, event.by) for event in done] == [(HOOK_DONE, "1-1", "server")] * 2
    assert done[0].text.startswith(f"attach,detach={program}: exit status 0, after ")


def test_an_address_is_called_for_a_refusal(bus: FakeBus) -> None:
    with web_hook() as hook, serve(["1-1"], listen=ANY, bus=bus, hooks=f"refused=http://{hook.place}/x") as server:
        with pytest.raises(ImportRefused):
            ServerAddress(*server.addresses[0], 30.0).import_device(Selector("9-9"))
        ((_, body),) = hook.wait(1)
        wait_until("its outcome is known", lambda: outcomes(server.events), 30)
        events = server.events
    assert (body["event"], body["kind"], body["busid"], body["by"]) == ("refused", "refused", "9-9", "server")
    (done,) = outcomes(events)
    assert (done.kind, done.busid) == (HOOK_DONE, "9-9")
    assert done.text.startswith(f"refused=http://{hook.place}: answered 204, after ")


def test_nobody_waits_for_a_hook(bus: FakeBus) -> None:
    """One that does not answer: clients come and go, another hook is called, and the end is called for as well."""
    with web_hook() as slow, web_hook() as quick:
        slow.hold.clear()
        hooks = [f"attach,detach=http://{slow.place}/", f"attach,detach=http://{quick.place}/"]
        with serve(["1-1"], listen=ANY, bus=bus, hooks=hooks) as server:
            for _ in range(3):
                import_once(server)
            quick.wait(6)
            assert len(slow.wait(1)) == 1
            client = ServerAddress(*server.addresses[0], 30.0).import_device(Selector("1-1"))
            quick.wait(7)
            slow.hold.set()
            slow.wait(7)
        client.close()
        for hook in (slow, quick):  # the last client was disconnected by the end of the server
            assert [body["event"] for _, body in hook.requests] == ["attach", "detach"] * 4
            assert hook.requests[-1][1]["by"] == "server"


def test_a_failure_is_an_event_and_is_logged_once(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    with (
        web_hook(lambda number: b"HTTP/1.1 500 No\r\n\r\n") as hook,
        serve(["1-1"], listen=ANY, bus=bus, hooks=f"attach=http://{hook.place}/?secret") as server,
    ):
        import_once(server)
        import_once(server)
        hook.wait(2)
        wait_until("both outcomes are known", lambda: len(outcomes(server.events)) == 2, 30)
        found = outcomes(server.events)
    assert {(event.kind, event.text) for event in found} == {
        (HOOK_FAILED, f"attach=http://{hook.place}: it answered 500")
    }
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert logged == [f"hook attach=http://{hook.place}: it answered 500"]


def test_what_does_not_fit_is_reported() -> None:
    events = Events()
    with web_hook() as server:
        hooks = Hooks(events, "lab", [f"refused=http://{server.place}/"])
        server.hold.clear()
        events.emit(REFUSED)
        server.wait(1)
        for number in range(WAITING + 5):
            events.emit(REFUSED, text=str(number))
            events.emit(IMPORTED)  # which it is not called for
        server.hold.set()
        server.wait(1 + WAITING)
        hooks.close()
        assert [body.get("text") for _, body in server.requests[1:]] == [str(number) for number in range(WAITING)]
    (failed,) = [event for event in outcomes(events) if event.kind == HOOK_FAILED]
    assert failed.text.endswith(": 5 events were not reported to it: it takes longer than they do to come")


def test_the_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What is being called is ended, and what waits is not called."""
    monkeypatch.setattr("usbip_capture.serving.hooks._LAST_CALLS", 0.2)
    events = Events()
    started = tmp_path / "started"
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport time\nopen({str(started)!r}, 'a').write('x')\ntime.sleep(600)\n")
    program.chmod(stat.S_IRWXU)
    hooks = Hooks(events, "lab", [f"attach='{program}'"], timeout=600.0)
    events.emit(IMPORTED)
    events.emit(IMPORTED)
    wait_until("it runs", started.exists)
    threads = [thread for thread in threading.enumerate() if thread.name == "usbip-hook"]
    hooks.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert started.read_text() == "x"
    assert f"hook attach={program} was not called to the end: 1 events were waiting for it" in caplog.text
    assert [event.text for event in outcomes(events)] == [f"attach={program}: it was ended with the server"]


def test_a_program_that_is_not_there(bus: FakeBus, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    for name in ("no-such-program-of-ours", str(plain), str(tmp_path / "nothing")):
        with pytest.raises(UsbipError, match="there is no such program, or it may not be run"):
            serve(["1-1"], listen=ANY, bus=bus, hooks=f"attach={name}")
    with pytest.raises(LocalProtocolError, match="hooks: 'begin' is not an event for hooks"):
        serve(["1-1"], listen=ANY, bus=bus, hooks="begin=/bin/true")


def test_options_of_the_command() -> None:
    args = commands.parse("serve", ["--all", "--hook", "attach=notify x", "--hook=detach=http://192.0.2.1/"])
    assert command.settings(args).hooks == ("attach=notify x", "detach=http://192.0.2.1/")


def test_only_events_that_happen_from_now_on(bus: FakeBus) -> None:
    events = Events()
    events.emit(RELEASED, peer=Peer("192.0.2.7", 1, "192.0.2.1"))
    with web_hook() as server:
        hooks = Hooks(events, "lab", [f"detach=http://{server.place}/"])
        events.emit(RELEASED, text="now")
        server.wait(1)
        hooks.close()
        assert [body["text"] for _, body in server.requests] == ["now"]


def test_what_is_plugged_in(bus: FakeBus) -> None:
    """Whether it is exported or not; what was there before the start has not been plugged in."""
    with web_hook() as hook:
        with serve(["1-1"], listen=ANY, bus=bus, hooks=f"plug,unplug=http://{hook.place}/"):
            bus.plug("2-1", (0x1209, 0x0001), serial="A1")
            hook.wait(1)
            bus.unplug("2-1")
            hook.wait(2)
        called = [(body["event"], body["kind"], body["busid"], body["device"]) for _, body in hook.requests]
    assert called == [
        ("plug", "plugged", "2-1", "1209:0001:A1"),
        ("unplug", "unplugged", "2-1", "1209:0001"),
    ]
