"""`CaptureSession` as a program would use it: no Wireshark, no terminal."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture, read_items
from usbip_capture.capture.sinks import Sink, StreamSink
from usbip_capture.capture_session.events import SessionEvents
from usbip_capture.capture_session.output import Output
from usbip_capture.capture_session.session import (
    BY_DURATION,
    BY_OUTPUT,
    BY_SOURCE,
    BY_STOP,
    CAPTURING,
    ENDED,
    NEW,
    CaptureSession,
)
from usbip_capture.capture_session.settings import CaptureSettings
from usbip_capture.errors import LocalProtocolError, ServerUnreachable, UsbipError
from usbip_capture.options.table import Choices
from usbip_capture.servers.address import ServerAddress

DEMO = ServerAddress("demo", 3240)


def settings(server: ServerAddress | None = DEMO, **given: str) -> CaptureSettings:
    return CaptureSettings(Choices({name.replace("_", "-"): text for name, text in given.items()}), server)


class Memory:
    """An output in memory, which counts how often it was opened."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.stream = io.BytesIO()
        self.opened = 0
        self.output = Output(self._open, at_once)

    def _open(self, stopping: threading.Event) -> Sink:
        self.opened += 1
        return StreamSink(self.stream, "memory")

    def packets(self, folder: Path) -> int:
        path = folder / "memory.pcapng"
        path.write_bytes(self.stream.getvalue())
        list(read_items(path))  # complete
        return sum(record.usb is not None for record in read_capture(path))


class Recorded(SessionEvents):
    def __init__(self) -> None:
        self.happened: list[str] = []
        self.log = threading.Event()

    def capturing(self) -> None:
        self.happened.append("capturing")

    def log_message(self, message: object) -> None:
        self.log.set()

    def ended(self) -> None:
        self.happened.append("ended")


def test_from_start_to_stop(tmp_path: Path) -> None:
    memory, events = Memory(), Recorded()
    session = CaptureSession(settings(), events)
    assert (session.state, session.wait(0)) == (NEW, False)
    session.comment("usbip-capture: before it begins")
    session.start(memory.output)
    assert session.wait_until_capturing()
    assert session.state == CAPTURING
    session.stop()
    assert session.wait(20)
    assert (session.state, session.ended_by, session.error, session.output_error) == (ENDED, BY_STOP, None, None)
    assert session.writer is not None
    assert memory.packets(tmp_path) == session.writer.written
    assert b"before it begins" in memory.stream.getvalue()
    assert events.happened == ["capturing", "ended"]


@pytest.mark.parametrize(
    ("given", "ended_by"), [({"count": "12"}, BY_OUTPUT), ({"duration": "0.2"}, BY_DURATION)], ids=["count", "time"]
)
def test_it_ends_by_itself_though_nobody_waits_for_it(given: dict[str, str], ended_by: str, tmp_path: Path) -> None:
    memory = Memory()
    ended = threading.Event()
    events = Recorded()
    events.ended = ended.set  # type: ignore[method-assign]
    session = CaptureSession(settings(DEMO, **given), events)
    session.start(memory.output)
    assert ended.wait(20)
    assert (session.ended_by, session.error) == (ended_by, None)
    assert session.writer is not None
    assert memory.packets(tmp_path) == session.writer.written
    assert session.writer.written == 12 or ended_by == BY_DURATION


@pytest.mark.parametrize("at_once", [False, True])
def test_no_server_leaves_a_file_alone_and_completes_a_pipe(at_once: bool, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    memory = Memory(at_once=at_once)
    session = CaptureSession(settings(ServerAddress("127.0.0.1", port)))
    session.start(memory.output)
    assert not session.wait_until_capturing()
    assert session.wait(20)
    assert isinstance(session.error, ServerUnreachable)
    assert (session.ended_by, session.captured, memory.opened) == (BY_SOURCE, False, int(at_once))
    assert memory.packets(tmp_path) == 0
    assert bool(memory.stream.getvalue()) is at_once


def test_settings_that_are_wrong_still_complete_a_pipe(tmp_path: Path) -> None:
    def wrong() -> CaptureSettings:
        raise LocalProtocolError("it is wrong")

    memory = Memory(at_once=True)
    session = CaptureSession(wrong)
    session.start(memory.output)
    assert session.wait(20)
    assert str(session.error) == "it is wrong"
    assert memory.stream.getvalue()
    assert memory.packets(tmp_path) == 0


def test_a_server_that_is_silent_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        memory = Memory()
        session = CaptureSession(
            settings(ServerAddress("127.0.0.1", silent.getsockname()[1], 600)), release_timeout=0.1
        )
        session.start(memory.output)
        connection, _ = silent.accept()
        session.stop()
        assert session.wait(20)
        assert (session.ended_by, session.captured, memory.opened) == (BY_STOP, False, 0)
        connection.close()


def test_the_log_alone_needs_no_server() -> None:
    memory, events = Memory(), Recorded()
    chosen = settings(None, mode="syslog", syslog="listen", syslog_listen="udp:127.0.0.1:0")
    session = CaptureSession(chosen, events)
    session.start(memory.output)
    assert session.wait_until_capturing()
    session.stop()
    assert session.wait(20)
    assert (session.ended_by, session.error) == (BY_STOP, None)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="not captured in mode relay"):
        settings(mode="relay", syslog="connect")


def test_a_thread_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    session = CaptureSession(settings())
    with pytest.raises(UsbipError, match="cannot start: can't start new thread"):
        session.start(Memory().output)
    assert (session.state, session.wait(0)) == (ENDED, True)


def test_a_fault_of_a_listener_ends_the_session_with_it() -> None:
    class Faulty(SessionEvents):
        def capturing(self) -> None:
            raise ZeroDivisionError

    session = CaptureSession(settings(), Faulty())
    session.start(Memory().output)
    assert session.wait(20)
    assert isinstance(session.error, ZeroDivisionError)
