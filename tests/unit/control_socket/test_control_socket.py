"""The control socket: one request, one answer; who asks is of its user, and costs nobody else anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from usbip_capture.cli.exits import NOT_RUNNING, USAGE, exit_code
from usbip_capture.control_socket import asking, peers, serving
from usbip_capture.control_socket.asking import Control, find, running
from usbip_capture.control_socket.serving import ControlSocket, file_name
from usbip_capture.errors import (
    CannotListen,
    DeviceNotFound,
    LocalProtocolError,
    NotRunning,
    RemoteProtocolError,
    ServerLost,
    UsbipError,
)
from usbip_capture.live import messages
from usbip_capture.live.local_listener import connect_local
from usbip_capture.live.messages import Message
from usbip_capture.system.folders import runtime_folder, runtime_folders


def _refusing(request: Message) -> Message:
    raise DeviceNotFound(f"nobody has {request['busid']}")


def _broken(request: Message) -> Message:
    raise ValueError("a bug")


HANDLERS: dict[str, Callable[[Message], Message]] = {
    "echo": lambda request: {"said": request.get("text")},
    "refuse": _refusing,
    "misuse": lambda request: {"number": messages.number(request, "number")},
    "broken": _broken,
}


@pytest.fixture(params=[False, True], ids=["unix", "loopback"])
def server(request: pytest.FixtureRequest) -> Iterator[ControlSocket]:
    made = ControlSocket("bench", HANDLERS, listen="127.0.0.1:3240", loopback=request.param)
    yield made
    made.close()


def folder() -> Path:
    return Path(runtime_folder(), serving.FOLDER)


def raw(control: Control, data: bytes) -> bytes:
    """What comes back for these bytes, until the server ends the connection."""
    with connect_local(control._entry.address, 20.0) as sock:
        sock.sendall(data)
        answer = b""
        while part := sock.recv(4096):
            answer += part
        return answer


def line(control: Control, **fields: object) -> bytes:
    return json.dumps({"token": control._entry.token, **fields}).encode() + b"\n"


def test_a_request_has_one_answer(server: ControlSocket) -> None:
    control = find()
    assert (control.name, control.listen, control.pid) == ("bench", "127.0.0.1:3240", os.getpid())
    assert control.call("echo", text="\u202e\n") == {"said": "\u202e\n", "ok": True}


def test_an_error_comes_as_what_it_is(server: ControlSocket) -> None:
    with pytest.raises(DeviceNotFound, match=r"nobody has 1-1\.4"):
        find().call("refuse", busid="1-1.4")
    with pytest.raises(LocalProtocolError, match="another version"):
        find().call("unheard-of")
    with pytest.raises(RemoteProtocolError, match="number on the channel is -1"):
        find().call("misuse", number=-1)


def test_a_bug_in_one_request_costs_that_one(server: ControlSocket, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsbipError, match="whose log has more"):
        find().call("broken")
    assert "a bug" in caplog.text
    assert find().call("echo", text="still there")["said"] == "still there"


@pytest.mark.parametrize(
    "data", [b"\n", b"[]\n", b"{\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"[" * 60_000 + b"\n", b"x" * 70_000]
)
def test_what_is_not_a_request_gets_a_sentence(server: ControlSocket, data: bytes) -> None:
    control = find()
    try:
        answer = raw(control, data)
    except ConnectionError:  # it had not read all of that when it ended the connection
        pass
    else:
        assert set(json.loads(answer)) == {"error", "kind"}
    assert control.call("echo", text="x")["ok"]


@pytest.mark.parametrize("token", ["", "0" * 32, 7, None, "\u00e9"])
def test_without_the_token_nothing_is_done(server: ControlSocket, token: object) -> None:
    answer = json.loads(raw(find(), json.dumps({"token": token, "request": "echo"}).encode() + b"\n"))
    assert "token" in answer["error"]


def test_who_sends_nothing_is_disconnected(server: ControlSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_TIMEOUT", 0.05)
    assert raw(find(), b"") == b""
    assert raw(find(), b'{"request": "ec') == b""


def test_who_drips_has_one_deadline_for_all(server: ControlSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_TIMEOUT", 0.2)
    with connect_local(find()._entry.address, 20.0) as sock:
        for _ in range(10_000):
            try:
                sock.sendall(b" ")
            except OSError:
                return
            if not threading.Event().wait(0.005) and _ended(sock):
                return
    pytest.fail("it was served for ever")


def _ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(20.0)


def test_there_are_so_many_connections_at_a_time(server: ControlSocket) -> None:
    """Those who say nothing keep others out for a while only, and cost a bounded number of threads."""
    control = find()
    idle = [connect_local(control._entry.address, 20.0) for _ in range(serving._MAX_CONNECTIONS)]
    wait_until("all are served", lambda: len(server._threads) == serving._MAX_CONNECTIONS)
    with pytest.raises(ServerLost):
        control.call("echo", text="one more")
    assert len(server._threads) == serving._MAX_CONNECTIONS
    for sock in idle:
        sock.close()
    wait_until("they are gone", lambda: not server._threads)
    assert control.call("echo", text="now")["said"] == "now"


def test_many_ask_at_once(server: ControlSocket) -> None:
    answers: list[object] = []

    def ask(number: int) -> None:
        answers.append(find().call("echo", text=number)["said"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == sorted(map(str, range(16)))


def test_an_answer_may_be_long(server: ControlSocket) -> None:
    text = "x" * 50_000
    server._handlers = {"long": lambda request: {"said": text * 20}}
    assert find().call("long")["said"] == text * 20


def test_the_end_leaves_nothing(server: ControlSocket) -> None:
    control = find()
    server.close()
    server.close()
    assert list(folder().iterdir()) == []
    with pytest.raises(NotRunning):
        find()
    with pytest.raises(ServerLost, match=f"cannot be reached: end its process, {os.getpid()}"):
        control.call("echo")


def test_only_its_user_may_use_it() -> None:
    made = ControlSocket("bench", HANDLERS)
    try:
        paths = list(folder().iterdir())
        assert stat.S_IMODE(folder().stat().st_mode) == 0o700
        assert len(paths) == 2
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    finally:
        made.close()


def test_the_kernel_says_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peers.peer_uid(ours) == os.geteuid()
        assert peers.is_trusted(ours)
        monkeypatch.setattr(peers, "peer_uid", lambda sock: os.geteuid() + 1)
        assert not peers.is_trusted(ours)
        monkeypatch.setattr(peers, "peer_uid", lambda sock: 0)
        assert peers.is_trusted(ours)


def test_another_user_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ControlSocket("bench", HANDLERS)
    try:
        monkeypatch.setattr(serving, "is_trusted", lambda sock: False)
        with pytest.raises(RemoteProtocolError, match="its own user only: use sudo"):
            find().call("echo")
    finally:
        made.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_cannot_even_connect() -> None:
    made = ControlSocket("bench", HANDLERS)
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\nexcept PermissionError: print('kept out')"
    )
    try:
        path = find()._entry.address.removeprefix("unix:")
        command = [sys.executable, "-c", program, path]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert done.stdout == "kept out\n"
    finally:
        made.close()


def test_none_running_is_a_sentence_with_an_exit_code_of_its_own() -> None:
    with pytest.raises(NotRunning, match="no server of yours is running: start one with `usbip-capture serve`") as info:
        find()
    assert exit_code(info.value) == NOT_RUNNING
    with pytest.raises(NotRunning):
        find("bench")


def test_several_are_told_apart() -> None:
    made = [ControlSocket("bench", HANDLERS, listen=f"127.0.0.1:{port}") for port in (3240, 3241)]
    try:
        assert [server.name for server in made] == ["bench", "bench-2"]
        with pytest.raises(
            LocalProtocolError, match=r"2 servers .* --server: bench \(127.0.0.1:3240\), bench-2"
        ) as info:
            find()
        assert exit_code(info.value) == USAGE
        assert find("BENCH-2").listen == find("127.0.0.1:3241").listen == "127.0.0.1:3241"
        with pytest.raises(NotRunning, match="no server called 'rack' is running: there is bench"):
            find("rack")
    finally:
        for server in made:
            server.close()


def test_a_name_with_blanks_is_found_as_it_was_given() -> None:
    made = ControlSocket("Rack 1", HANDLERS)
    try:
        assert find("rack 1").name == find("Rack-1").name == "Rack-1"
    finally:
        made.close()


def test_names_of_two_folders_stay_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = ControlSocket("bench", HANDLERS)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "usbip-capture"))
    assert runtime_folder() == str(tmp_path / "usbip-capture")
    other = ControlSocket("bench", HANDLERS)
    folders = [*runtime_folders(), str(tmp_path / "usbip-capture")]
    monkeypatch.setattr(asking, "runtime_folders", lambda: folders)
    try:
        assert [server.name for server in running()] == ["bench", "bench-2"]
    finally:
        one.close()
        other.close()


def test_a_service_that_starts_us_keeps_its_folder_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/labgrid")
    assert runtime_folder() == runtime_folders()[0]


def test_the_folder_of_another_user_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def listdir(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(asking, "runtime_folders", lambda: ["/run/usbip-capture"])
    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(NotRunning, match="no server of yours is running, and /run/usbip-capture is another user's"):
        find()


def test_what_a_killed_server_leaves_is_swept() -> None:
    program = (
        "import sys, time; from usbip_capture.control_socket.serving import ControlSocket\n"
        "made = ControlSocket('bench', {}); print(made.name, flush=True); time.sleep(60)"
    )
    killed = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    with killed.stdout:
        assert killed.stdout.readline() == "bench\n"
        assert [server.pid for server in running()] == [killed.pid]
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
    assert running() == []
    assert len(list(folder().iterdir())) == 2
    made = ControlSocket("bench", HANDLERS)
    try:
        assert made.name == "bench"
        assert len(list(folder().iterdir())) == 2
        assert [server.pid for server in running()] == [os.getpid()]
    finally:
        made.close()


def test_a_folder_that_cannot_be_had_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(CannotListen, match=r"commands for this server cannot be taken: Not a directory: is .* yours\?"):
        ControlSocket("bench", HANDLERS)


def test_a_long_folder_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
    made = ControlSocket("bench", HANDLERS)
    try:
        assert find().call("echo", text="x")["said"] == "x"
    finally:
        made.close()


@pytest.mark.parametrize(
    ("name", "made"),
    [("Rack 1", "Rack-1"), ("../../etc/x", "etc-x"), ("", "server"), (".", "server"), ("\u00fc/\n", "\u00fc"),
     ("a" * 300, "a" * 64)],
)  # fmt: skip
def test_any_name_can_be_a_files(name: str, made: str) -> None:
    assert file_name(name) == made
