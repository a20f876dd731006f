"""Where events go: the log, a file, real receivers of syslog. None holds up a client, and what is lost is known."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.local_bus import FakeBus, bus_with, import_once
from tests.fakes.syslog_senders import Messages, port_of
from tests.waiting import wait_until
from usbip_capture import LocalServer, SyslogReceiver, serve
from usbip_capture.cli.main import main
from usbip_capture.errors import ImportRefused, UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.server import Access, Decision, Server
from usbip_capture.server.events import EXPORTED, LOST, Event, Events
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.serving.audit import AUDIT_LOGGER, Audit, Output
from usbip_capture.syslog.message import RFC5424, Message
from usbip_capture.system.shown import one_line

RSYSLOGD = shutil.which("rsyslogd") or shutil.which("rsyslogd", path="/usr/sbin:/sbin")
ANY = "127.0.0.1:0"
#: What a device may call itself: colours, a line break, what ends a parameter of structured data.
SERIAL = '\x1b[2J"]\n\\\u202e'
#: What happens when a client lists, attaches and leaves, and the server ends.
COURSE = [
    "exported", "started", "connected", "listed", "disconnected", "connected", "imported", "released", "withdrawn",
    "stopped",
]  # fmt: skip


@pytest.fixture
def bus() -> FakeBus:
    return bus_with(SERIAL)


def attach(server: LocalServer) -> None:
    """As a client does: list, import, and leave."""
    address = ServerAddress(*server.addresses[0], 20.0)
    assert [info.busid for info in address.devices()] == ["1-1"]
    wait_until("it has left", lambda: not server.clients)
    import_once(server)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kinds(path: Path) -> list[object]:
    return [event["kind"] for event in read(path)]


def test_a_file_has_the_whole_course(bus: FakeBus, tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    with serve(["1-1"], listen=ANY, bus=bus, audit=path) as server:
        attach(server)
    assert kinds(path) == COURSE
    found = {str(event["kind"]): event for event in read(path)}
    assert [event["number"] for event in read(path)] == list(range(1, len(COURSE) + 1))
    assert found["exported"]["device"] == f"303a:4001:{SERIAL}"
    assert found["exported"]["rule"] == "1-1"
    assert (found["imported"]["client"], found["imported"]["busid"]) == ("127.0.0.1", "1-1")
    assert found["released"]["by"] == "client"
    assert found["withdrawn"]["by"] == "server"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_log_has_events_with_their_data(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, AUDIT_LOGGER), serve(["1-1"], listen=ANY, bus=bus) as server:
        attach(server)
    records = [record for record in caplog.records if record.name == AUDIT_LOGGER]
    assert [record.__dict__["usbip_event"]["kind"] for record in records] == COURSE
    assert all(record.getMessage().isprintable() and record.levelno == logging.INFO for record in records)


@contextmanager
def collecting(transport: str) -> Iterator[tuple[Messages, int]]:
    messages = Messages()
    with SyslogReceiver(listen=f"{transport}:127.0.0.1:0", callback=messages) as receiver:
        yield messages, port_of(receiver, transport)
    assert receiver.counts.flaws() == []


def assert_course(messages: Sequence[Message]) -> None:
    assert [message.msgid for message in messages] == COURSE
    for message in messages:
        assert (message.format, message.facility, message.app_name) == (RFC5424, 10, "usbip-capture")
        assert message.procid == str(os.getpid())
        assert message.hostname == socket.gethostname()
        assert message.text.isprintable()
    imported = messages[COURSE.index("imported")]
    assert imported.severity_name == "notice"
    (data,) = imported.structured_data.values()
    assert data["busid"] == "1-1"
    assert data["device"] == one_line(f"303a:4001:{SERIAL}")
    assert "has imported 1-1 (303a:4001:" in imported.text


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_our_own_receiver(transport: str, bus: FakeBus) -> None:
    with collecting(transport) as (messages, port):
        with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=f"{transport}:127.0.0.1:{port}") as server:
            attach(server)
        assert_course(messages.wait(len(COURSE)))


@contextmanager
def rsyslogd(folder: Path, source: str, is_ready: str) -> Iterator[Path]:
    """A running one that writes what comes from `source`; the file. is_ready: a path that is there then."""
    if RSYSLOGD is None:
        pytest.skip("rsyslogd is not installed")
    written = folder / "written"
    configuration = folder / "rsyslog.conf"
    template = "%pri%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\\n"
    configuration.write_text(
        f'global(workDirectory="{folder}")\n{source}\n'
        f'template(name="fields" type="string" string="{template}")\n'
        f'action(type="omfile" file="{written}" template="fields")\n'
    )
    command = [RSYSLOGD, "-n", "-f", str(configuration), "-i", str(folder / "pid")]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until("rsyslogd listens", lambda: is_ready and os.path.exists(is_ready))
        yield written
    finally:
        process.terminate()
        process.wait(20)


def assert_written(written: Path) -> None:
    wait_until("rsyslogd has written all", lambda: written.exists() and written.read_text().count("\n") >= len(COURSE))
    rows = [line.split("|") for line in written.read_text().splitlines()]
    assert [row[3] for row in rows] == COURSE
    for row in rows:
        assert row[1:3] == ["usbip-capture", str(os.getpid())]
        assert row[4].startswith('[usbip-capture@32473 number="')
    imported = rows[COURSE.index("imported")]
    assert imported[0] == str(10 * 8 + 5)
    assert 'busid="1-1"' in imported[4]
    assert '\\\\x1b[2J\\"\\]\\\\n' in imported[4]
    assert "has imported 1-1" in imported[5]


def test_rsyslogd_by_tcp(bus: FakeBus, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    source = f'module(load="imtcp")\ninput(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{port_file}")'
    with rsyslogd(tmp_path, source, str(port_file)) as written:
        port = int(wait_until("the port is known", port_file.read_text))
        with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=f"tcp:127.0.0.1:{port}") as server:
            attach(server)
        assert_written(written)


def test_rsyslogd_by_its_socket(bus: FakeBus, tmp_path: Path) -> None:
    """One that reads RFC 5424 there, which it does if it is configured so."""
    path = f"{tmp_path}/log"
    source = (
        f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{path}" UseSpecialParser="off"'
        ' RateLimit.Interval="0")'
    )
    with rsyslogd(tmp_path, source, path) as written:
        with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=f"unix:{path}") as server:
            attach(server)
        assert_written(written)


def test_rsyslogd_as_it_reads_dev_log(bus: FakeBus, tmp_path: Path) -> None:
    path = f"{tmp_path}/log"
    source = f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{path}" RateLimit.Interval="0")'
    with rsyslogd(tmp_path, source, path) as written:
        with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=path) as server:
            attach(server)
        wait_until("all is written", lambda: written.exists() and written.read_text().count("\n") >= len(COURSE))
    rows = [line.split("|") for line in written.read_text().splitlines()]
    for row, kind in zip(rows, COURSE, strict=True):
        assert row[1:3] == ["usbip-capture", str(os.getpid())]
        assert f'[usbip-capture@32473 kind="{kind}" number="' in row[5]
    imported = rows[COURSE.index("imported")]
    assert imported[0] == str(10 * 8 + 5)
    assert "has imported 1-1 (303a:4001:" in imported[5]


def test_a_stream_socket_of_this_machine(bus: FakeBus, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)
        with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=f"unix:{path}"):
            receiver = listener.accept()[0]
        with receiver:
            while data := receiver.recv(4096):
                received += data
    assert received.count(b" usbip-capture ") == 4


def test_a_receiver_that_is_started_later_and_again(bus: FakeBus) -> None:
    """What was before it is sent then; nothing of that waits for a client."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=f"tcp:127.0.0.1:{port}") as server:
        output = server.audit.outputs[-1]
        wait_until("it cannot be reached", lambda: output.trouble)
        attach(server)
        for course in (COURSE[:-2], COURSE[2:-2]):
            messages = Messages()
            with SyslogReceiver(listen=f"tcp:127.0.0.1:{port}", callback=messages):
                if course[0] == "connected":
                    attach(server)
                assert [message.msgid for message in messages.wait(len(course))] == course
        assert (output.lost, output.trouble) == (0, "")


class StuckTarget:
    """Takes nothing until `go` is set; raises as long as `broken` is."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.broken = False
        self.events: list[Event] = []

    def __str__(self) -> str:
        return "the stuck target"

    def write(self, events: Sequence[Event]) -> int:
        self.entered.set()
        self.go.wait(60)
        if self.broken:
            raise OSError("it is broken")
        self.events += events
        return len(events)

    def close(self) -> None:
        pass


def test_a_target_that_is_stuck_holds_up_nobody_and_what_is_lost_is_reported(tmp_path: Path) -> None:
    events, stuck = Events(), StuckTarget()
    path = tmp_path / "audit"
    audit = Audit(events, str(path))
    output = Output(events, stuck, waiting=50)
    audit.outputs.append(output)
    events.emit(EXPORTED, busid="first")
    assert stuck.entered.wait(20)
    for number in range(200):
        events.emit(EXPORTED, busid=str(number))
    wait_until("the file has them", lambda: path.read_text().count("\n") == 201)
    stuck.go.set()
    wait_until("what is lost is known", lambda: output.lost == 150)
    audit.close()
    assert [event.busid for event in stuck.events if event.kind == EXPORTED] == ["first", *map(str, range(50))]
    (missing,) = (event for event in stuck.events if event.kind == LOST)
    assert missing.times == 150
    assert stuck.events[-1].kind == "stopped"
    assert output.written == 52
    assert audit.outputs[1].lost == 0


def test_a_target_that_is_stuck_or_broken_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    for broken in (False, True):
        events, stuck = Events(), StuckTarget()
        stuck.broken = broken
        if broken:
            stuck.go.set()
        output = Output(events, stuck)
        for number in range(10):
            events.emit(EXPORTED, busid=str(number))
        assert stuck.entered.wait(20)
        events.close()
        output.close(20.0 if broken else 0.0)
        assert output.lost == 10
        assert "the audit is incomplete: 10 events are not in the stuck target" in caplog.text
        stuck.go.set()
    assert caplog.text.count("the audit waits: the stuck target cannot be written: it is broken") == 1


def test_one_who_reads_nothing_by_tcp_holds_up_no_client(bus: FakeBus) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with serve(["1-1"], listen=ANY, bus=bus, audit_syslog=f"tcp:127.0.0.1:{listener.getsockname()[1]}") as server:
            reader = listener.accept()[0]
            with reader:
                for _ in range(30_000):
                    server.events.emit(EXPORTED, text="x" * 250)
                attach(server)
                assert server.events.last > 30_000
                lost = server.audit.outputs[-1]._subscription.total_lost
                assert lost > 1000


def test_a_disk_that_is_full_costs_no_client(
    bus: FakeBus, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with serve(["1-1"], listen=ANY, bus=bus, audit="/dev/full") as server:
        attach(server)
        wait_until("it is known", lambda: server.audit.outputs[1].trouble)
        assert main(["status"]) == 0
    assert "audit, /dev/full: it cannot be written now: No space left on device\n" in capsys.readouterr().out
    assert caplog.text.count("the audit waits: /dev/full cannot be written: No space left on device") == 1
    assert f"the audit is incomplete: {len(COURSE)} events are not in /dev/full: No space left on device" in caplog.text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"audit": "missing/audit"}, "the audit cannot be written to missing/audit: No such file or directory"),
        ({"audit": "."}, "the audit cannot be written to .: Is a directory"),
        ({"audit_syslog": "pi:99999"}, "audit-syslog: 'pi:99999' is not where a syslog is"),
        ({"audit_syslog": "pi:0"}, "is not where a syslog is"),
        ({"audit_syslog": "tls:pi:6514"}, "is not where a syslog is"),
        ({"audit_syslog": "/dev/\0log"}, "is not where a syslog is"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(
    given: dict[str, str], sentence: str, bus: FakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsbipError, match=sentence):
        serve(["1-1"], listen=ANY, bus=bus, **given)  # type: ignore[arg-type]  # each takes a text


def test_many_events_at_once(tmp_path: Path) -> None:
    events, path = Events(), tmp_path / "audit"
    audit = Audit(events, str(path))
    threads = [
        threading.Thread(target=lambda: [events.emit(EXPORTED) for _ in range(500)])  # type: ignore[func-returns-value]
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit.close()
    assert [event["number"] for event in read(path)] == list(range(1, 4002))
    assert [output.lost for output in audit.outputs] == [0, 0]


def test_what_was_decided_names_its_rule(bus: FakeBus, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with serve(["1-1"], listen=ANY, bus=bus, audit=path, rules=["allow any 303a:4001"]) as server:
        address = ServerAddress(*server.addresses[0], 20.0)
        device = address.import_device(Selector("1-1"))
        server.access.set("closed", ["deny 127.0.0.0/8 1-1"])
        wait_until("it has ended", lambda: not server.clients)
        with pytest.raises(ImportRefused):
            address.import_device(Selector("1-1"))
        server.access.set("closed", ["deny any all"])
        with pytest.raises(UsbipError):
            address.import_device(Selector("1-1"))
        device.close()
    found = [
        (event["kind"], event.get("rule")) for event in read(path) if event["kind"] in ("imported", "ended", "refused")
    ]
    assert found == [
        ("imported", "allow any 303a:4001"),
        ("ended", "deny 127.0.0.0/8 1-1"),
        ("refused", "deny 127.0.0.0/8 1-1"),
        ("refused", "deny any all"),
    ]
    assert kinds(path).count("access-changed") == 2


class Refusing(Access):
    """Nobody may connect. asked: how often it was."""

    def __init__(self) -> None:
        self.asked = 0

    def may_connect(self, peer: Peer) -> Decision:
        self.asked += 1
        return Decision(allowed=False, reason="closed today", rule="deny any all")


def test_a_refusal_has_its_rule_and_is_decided_once() -> None:
    access = Refusing()
    server = Server(access)
    try:
        address = ServerAddress(*server.listen("127.0.0.1", 0), 20.0)
        for _ in range(3):
            with pytest.raises(UsbipError):
                address.devices()
        assert access.asked == 3
        refused = server.events.after(0, 10)
        assert [(event.kind, event.text, event.rule) for event in refused] == [
            ("refused", "closed today", "deny any all")
        ] * 3
        assert all(event.peer is not None and event.peer.host == "127.0.0.1" for event in refused)
    finally:
        server.close()
