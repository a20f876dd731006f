"""`live`: what is offered leaves nothing behind when it cannot be, and what goes wrong with one costs that one."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from pathlib import Path

import pytest

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import CannotListen, CaptureError, RemoteProtocolError, UsbipError
from usbip_capture.live import joining, local_channel, messages, registry, serving
from usbip_capture.live.local_channel import LocalChannel
from usbip_capture.live.local_listener import connect_local
from usbip_capture.live.serving import Source


class Nothing(Source):
    def begin(self, writer: PcapWriter) -> object:
        return None

    def end(self, capture: object) -> None:
        pass

    def state(self) -> messages.Message:
        return {"clients": 0}

    def drop(self, number: int) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def offered(**options: bool) -> LocalChannel:
    return LocalChannel(Nothing(), "test", "Test", server="127.0.0.1", listen="", **options)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def fails_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    failures = iter([RuntimeError("can't start new thread")])
    start = threading.Thread.start

    def failing(self: threading.Thread) -> None:
        if self.name == name:
            for error in failures:
                raise error
        start(self)

    monkeypatch.setattr(threading.Thread, "start", failing)


def state_of(entry: registry.Entry) -> messages.Message:
    sock, answer, _ = joining.connect(entry, "state")
    sock.close()
    return answer


def test_no_thread_for_a_guest_costs_that_guest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_once(monkeypatch, "usbip-subscriber")
    with contextlib.closing(offered()):
        (entry,) = registry.running()
        with pytest.raises(UsbipError):
            state_of(entry)
        assert state_of(entry) == {"ok": True}


def test_no_thread_for_one_who_joins_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(offered()):
        (entry,) = registry.running()
        fails_once(monkeypatch, "usbip-joined-state")
        with pytest.raises(CaptureError, match="cannot be joined"):
            joining.JoinedState(entry, lambda _: None)


@pytest.mark.parametrize("loopback", [False, True])
@pytest.mark.parametrize("what", ["registering", "its thread"])
def test_what_cannot_be_offered_leaves_nothing_behind(
    loopback: bool, what: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "registering":
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    else:
        fails_once(monkeypatch, "usbip-local-channel")
    before = descriptors()
    with pytest.raises(CannotListen):
        offered(loopback=loopback)
    assert descriptors() == before
    folder = Path(registry.folder())
    assert not folder.exists() or not list(folder.iterdir())


def test_it_can_be_closed_by_several_at_once() -> None:
    offer = offered()
    threads = [threading.Thread(target=offer.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.running() == []


def test_a_name_that_is_taken_again_is_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look whether a file is left behind and its removal, nobody can take its name."""
    registry.make_folder()
    left = Path(registry.folder()) / "test"
    left.write_text("left behind")
    is_left = registry._is_left
    taking: list[threading.Thread] = []
    taken: list[registry.Registration] = []

    def take() -> None:
        taken.append(registry.Registration(registry.Entry("test", "Test", "unix:/x", "token", os.getpid())))

    def looked(name: str) -> bool:
        found = is_left(name)
        if not taking:
            taking.append(threading.Thread(target=take))
            taking[0].start()
            taking[0].join(0.2)  # it cannot end before we do
        return found

    monkeypatch.setattr(registry, "_is_left", looked)
    registry.sweep()
    taking[0].join()
    assert [entry.name for entry in registry.running()] == ["test"]
    taken[0].withdraw()


def test_a_greeting_that_drips_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_GREETING_TIMEOUT", 0.2)
    stop = threading.Event()
    with contextlib.closing(offered(loopback=True)):
        (entry,) = registry.running()
        with connect_local(entry.address, 5.0) as slow:
            slow.settimeout(20)

            def drip() -> None:
                with contextlib.suppress(OSError):
                    while not stop.wait(0.05):
                        slow.sendall(b" ")

            dripping = threading.Thread(target=drip)
            dripping.start()
            with contextlib.suppress(ConnectionResetError):
                assert slow.recv(1) == b""
            stop.set()
            dripping.join()


def test_an_answer_that_drips_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_TIMEOUT", 0.2)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    sock.sendall(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        host, port = listener.getsockname()
        with pytest.raises((UsbipError, RemoteProtocolError), match="does not answer"):
            joining.connect(registry.Entry("x", "X", f"tcp:{host}:{port}", "token", 1), "state")
        stop.set()
        dripping.join()


def test_files_numbered_1024_and_more_are_waited_for() -> None:
    """`select` takes none of these."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("no more than 1024 files can be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while held[-1] < 1040:
            held.append(os.dup(held[0]))
        with contextlib.closing(offered()):
            states: list[messages.Message] = []
            reported = threading.Event()

            def on_state(state: messages.Message) -> None:
                states.append(state)
                if len(states) == 2:
                    reported.set()

            joined = joining.JoinedState(registry.running()[0], on_state)
            assert reported.wait(20)
            joined.close()
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_channel, "_MAX_CONNECTIONS", 1)
    with contextlib.closing(offered()):
        (entry,) = registry.running()
        first, _, _ = joining.connect(entry, "state")
        with first, pytest.raises(UsbipError):
            state_of(entry)
