"""The log of a device on the time line of a server that is watched."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import run_line
from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_captures import client_of, echo
from usbip_capture import SyslogReceiver
from usbip_capture.capture.sinks import FileSink
from usbip_capture.capture_session.settings import SERVER, CaptureSettings
from usbip_capture.demo.log import DemoLog
from usbip_capture.options.table import Choices
from usbip_capture.server_stream import capture as joining
from usbip_capture.server_stream.capture import StreamedCapture, Wanted
from usbip_capture.servers.dashboards import TOKEN_VARIABLE, Dashboard
from usbip_capture.web.roles import LOOK

AHEAD_NS = 3_600_000_000_000


class Clock:
    """That of this machine, an hour ahead of the server's."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time_ns() -> int:
        return time.time_ns() + AHEAD_NS


def test_it_has_the_servers_time_and_a_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "time", Clock)
    path = tmp_path / "out.pcapng"
    with dashboard() as (server, made), client_of(server) as device:
        at = Dashboard.parse(made.urls[0], token=made.side.tokens.add("test-look", LOOK))
        with closing(StreamedCapture(at, lambda: FileSink(str(path)), Wanted())) as capture:
            wait_until("it has joined", lambda: capture.urbs)
            log = capture.add_log_interface("log of the board")
            for number in range(3):
                before = capture.urbs
                echo(device)
                wait_until("it is captured", lambda before=before: capture.urbs == before + 2)  # type: ignore[misc]
                log.write([(Clock.time_ns(), b"message %d" % number, ())])
            capture.comment("mark 1")
    records = [one for one in read_capture(path) if one.interface.name in ("usbip0", "syslog0")]
    names = [one.interface.name for one in sorted(records, key=lambda one: one.timestamp_ns)]
    assert names[-15:] == (["usbip0"] * 4 + ["syslog0"]) * 3
    (description,) = {one.interface.description for one in records if one.interface.name == "syslog0"}
    assert description == "log of the board; by the server's clock, aligned"
    texts = [text for one in read_capture(path) for text in one.comments]
    assert "mark 1" in texts
    assert any("smallest delay seen: our clock is +3600.0" in text for text in texts)
    assert abs(list(read_capture(path))[-1].timestamp_ns - time.time_ns()) < 600 * 10**9


def test_messages_of_a_device_that_sends_them(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    with dashboard() as (_, made):
        at = Dashboard.parse(made.urls[0], token=made.side.tokens.add("test-look", LOOK))
        with closing(StreamedCapture(at, lambda: FileSink(str(path)), Wanted())) as capture:
            receiver = SyslogReceiver(pcap=capture, listen="udp:127.0.0.1:0", callback=lambda message: None)
            with receiver, socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.sendto(b"<12>the board is hot", ("127.0.0.1", receiver.bound[0].port))
                wait_until("it is captured", lambda: b"the board is hot" in path.read_bytes())
    (found,) = [one for one in read_capture(path) if one.interface.name == "syslog0"]
    assert found.data.endswith(b"<12>the board is hot")
    assert "listening on udp:127.0.0.1:0; by the server's clock, aligned" in found.interface.description


def test_the_command_reads_it_from_the_servers_host(tmp_path: Path) -> None:
    ended = threading.Event()
    with dashboard() as (_, made), closing(DemoLog()) as log:
        _, port = log.listen("127.0.0.1", 0)

        def speak() -> None:
            while not ended.wait(0.02):
                log.write("I", "board", "hello")

        thread = threading.Thread(target=speak)
        thread.start()
        token = made.side.tokens.add("test-look", LOOK)
        line = f"--syslog --syslog-port {port} --count 4 -o {tmp_path / 'out.pcapng'}"
        done = run_line(
            f"usbip-capture capture --mode server {made.urls[0]} {line}", tmp_path, USBIP_CAPTURE_TOKEN=token
        )
        ended.set()
        thread.join()
    assert done.returncode == 0, done.stderr
    names = [one.interface.name for one in read_capture(tmp_path / "out.pcapng")]
    assert names.count("syslog0") == 4


@pytest.mark.parametrize(("text", "host"), [("http://192.0.2.1:8080", "192.0.2.1"), ("ssh://root@pi/8080", "ssh://pi")])
def test_where_it_is(text: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "x")
    settings = CaptureSettings(Choices({"mode": SERVER}), None, dashboard=Dashboard.parse(text))
    assert settings.log_host() == host
