"""One call of a hook: a program or an address, in bounded time, with an outcome or a sentence."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import certificate
from tests.fakes.web_hook import WebHook, web_hook
from tests.waiting import wait_until
from usbip_capture.errors import UsbipError
from usbip_capture.serving.hook_program import ProgramCall
from usbip_capture.serving.hook_request import RequestCall

posix = pytest.mark.skipif(os.name == "nt", reason="a program of Windows has no signals")
LONG = 30.0


def program(code: str, **variables: str) -> ProgramCall:
    return ProgramCall([sys.executable, "-c", code], variables, b'{"event": "attach"}\n')


# -- programs


def test_a_program_has_what_has_happened_and_not_our_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("USBIP_CAPTURE_KEPT", "kept")
    written = tmp_path / "written"
    code = "import json, os, sys; print(1);"
    code += f"json.dump([dict(os.environ), json.load(sys.stdin)], open({str(written)!r}, 'w'))"
    call = program(code, USBIP_DEVICE='303a:4001:\x1b[2J\n\0"\ud800', USBIP_TEXT="")
    assert call.run(LONG) == "exit status 0"
    environment, given = json.loads(written.read_text())
    assert given == {"event": "attach"}
    assert environment["USBIP_DEVICE"] == '303a:4001:\\x1b[2J\\n\\x00"\\ud800'
    assert (environment["USBIP_TEXT"], environment["USBIP_CAPTURE_KEPT"]) == ("", "kept")
    assert "NOTIFY_SOCKET" not in environment
    assert capfd.readouterr() == ("", "")


def test_arguments_are_not_a_shell_s(tmp_path: Path) -> None:
    written = tmp_path / "written"
    code = f"import sys; open({str(written)!r}, 'w').write(sys.argv[1])"
    assert ProgramCall([sys.executable, "-c", code, "$(id); `id` *"], {}, b"").run(LONG) == "exit status 0"
    assert written.read_text() == "$(id); `id` *"


@posix
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import sys; sys.exit('first\\nno \\x1b[31mroute\\n')", r"^exit status 1: no \\x1b\[31mroute$"),
        ("import sys; sys.exit(3)", "^exit status 3$"),
        ("import os; os.kill(os.getpid(), 9)", "^ended by signal 9$"),
        ("import os; [os.write(2, b'x' * 4096) for _ in range(100)]", "^exit status 1"),  # as full as a pipe is
    ],
)
def test_a_program_that_fails(code: str, sentence: str) -> None:
    with pytest.raises(UsbipError, match=sentence):
        program(code).run(LONG)


@posix
def test_a_program_that_does_not_end_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    call = program(code)
    failures: list[str] = []

    def run() -> None:
        try:
            call.run(600)
        except UsbipError as error:
            failures.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    number = int(wait_until("it has started another", lambda: pid.exists() and pid.read_text()))
    call.cancel()
    thread.join(30)
    assert failures == ["it was ended with the server"]
    wait_until("that one has ended", lambda: has_ended(number))
    with pytest.raises(UsbipError, match="the server ends"):
        call.run(LONG)


@posix
def test_what_it_has_started_is_ended_also_if_only_that_does_not_leave(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    call = program(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")

    def run() -> None:
        with pytest.raises(UsbipError, match="ended with the server"):
            call.run(600)

    thread = threading.Thread(target=run)
    thread.start()
    number = int(wait_until("it has started another", lambda: pid.exists() and pid.read_text()))
    call.cancel()
    thread.join(30)
    wait_until("that one has ended", lambda: has_ended(number))


def has_ended(pid: int) -> bool:
    """Also where nobody waits for it: as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@posix
def test_a_program_has_its_time() -> None:
    with pytest.raises(UsbipError, match=r"^it did not end within 0.2 s, and was made to$"):
        program("import time; time.sleep(600)").run(0.2)


@posix
def test_what_a_program_leaves_running_holds_nothing_up(tmp_path: Path) -> None:
    """It has the pipe of the standard error still."""
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(pid)!r}, 'w').write(str(child.pid))"
    )
    try:
        assert program(code).run(LONG) == "exit status 0"
    finally:
        os.kill(int(pid.read_text()), 9)


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    with pytest.raises(OSError, match=r"[Pp]ermission|[Ee]xec"):
        ProgramCall([str(text)], {}, b"").run(LONG)


# -- addresses

ELSEWHERE = "it redirects to another server, where nothing is sent"


def post(server: WebHook, path: str = "/usb?x=y") -> str:
    return RequestCall(f"http://{server.place}{path}", b'{"event": "attach"}').run(LONG)


def test_a_request() -> None:
    with web_hook() as server:
        assert post(server) == "answered 204"
        ((head, body),) = server.requests
        assert head.startswith("POST /usb?x=y HTTP/1.1\r\n")
        assert f"\r\nHost: {server.place}\r\n" in head
        assert "\r\nContent-Type: application/json\r\n" in head
        assert body == {"event": "attach"}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "answered 200"),
        (b"HTTP/1.0 202 \n\n", "answered 202"),
        (b"HTTP/1.1 200\r\n\r\n", "answered 200"),
        (b"HTTP/1.1 404 No\r\n\r\n", "it answered 404"),
        (b"HTTP/1.1 303 See\r\nLocation: /other\r\n\r\n", "it answered 303"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "it answered 302"),
        (b"", "it has not answered as a web server does"),
        (b"HTTP/1.1 200 OK\r\n", "it has not answered as a web server does"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it has not answered as a web server does"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", "it has not answered as a web server does"),
        (b"HTTP/1.1 307 T\r\nLocation: http://127.0.0.2:9/\r\n\r\n", ELSEWHERE),
        (b"HTTP/1.1 302 T\r\nlocation:https://PLACE/\r\n\r\n", ELSEWHERE),
        (b"HTTP/1.1 302 T\r\nLocation: //[\r\n\r\n", ELSEWHERE),
        (b"HTTP/1.1 302 T\r\nLocation: file:///etc/passwd\r\n\r\n", ELSEWHERE),
        (b"HTTP/1.1 302 T\r\nLocation: /\xff\r\n\r\n", ELSEWHERE),
        (b"HTTP/1.1 308 T\r\nLocation: again\r\n\r\n", "it redirects more than 3 times"),
    ],
)  # fmt: skip
def test_answers(answer: bytes, outcome: str) -> None:
    with web_hook(lambda number: answer.replace(b"PLACE", server.place.encode())) as server:
        try:
            found = post(server)
        except UsbipError as error:
            found = str(error)
        assert found == outcome


def test_a_redirection_within_the_server() -> None:
    answers = [b"HTTP/1.1 301 M\r\nLocation: ../b?c=d\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
    with web_hook(lambda number: answers[number]) as server:
        assert post(server, "/x/a") == "answered 200"
        assert [head.split("\r\n")[0] for head, _ in server.requests] == ["POST /x/a HTTP/1.1", "POST /b?c=d HTTP/1.1"]
        assert [body for _, body in server.requests] == [{"event": "attach"}] * 2


def test_the_deadline_is_that_of_the_exchange() -> None:
    """Not of each byte of an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def drip() -> None:
            with listener.accept()[0] as sock:
                while not done.wait(0.02):
                    try:
                        sock.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(UsbipError, match=r"^it has not answered within 0.5 s$"):
                RequestCall(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}").run(0.5)
        finally:
            done.set()
            thread.join(30)


def test_a_request_is_cancelled() -> None:
    with web_hook() as server:
        server.hold.clear()
        call = RequestCall(f"http://{server.place}/", b"{}")

        def cancel() -> None:
            server.wait(1)
            call.cancel()

        threading.Thread(target=cancel).start()
        with pytest.raises(UsbipError, match=r"^it was ended with the server$"):
            call.run(600)
        with pytest.raises(UsbipError, match=r"^it was ended with the server$"):
            call.run(600)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UsbipError, match=r"nothing listens on 127.0.0.1 port"):
        RequestCall(f"http://127.0.0.1:{port}/", b"{}").run(LONG)


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, both = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with web_hook(context=context) as server:
        with pytest.raises(UsbipError, match=r"^its certificate is not trusted: self"):
            RequestCall(f"https://{server.place}/", b"{}").run(LONG)
        assert not server.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(alone))
        assert RequestCall(f"https://{server.place}/", b"{}").run(LONG) == "answered 204"


def test_tls_with_who_has_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        call = RequestCall(f"https://127.0.0.1:{listener.getsockname()[1]}/", b"{}")
        with pytest.raises(UsbipError, match=r"^it has not answered within 1 s$"):
            call.run(1.0)

        def answer() -> None:
            listener.accept()[0].close()  # of the call before
            with listener.accept()[0] as sock:
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                sock.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UsbipError, match=r"^TLS with it fails: "):
            call.run(LONG)
        thread.join(30)


def test_a_handshake_is_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        call = RequestCall(f"https://127.0.0.1:{listener.getsockname()[1]}/", b"{}")

        def cancel() -> None:
            with listener.accept()[0] as sock:
                sock.recv(1)
                call.cancel()
                sock.recv(4096)

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(UsbipError, match=r"^it was ended with the server$"):
            call.run(600)
        thread.join(30)
