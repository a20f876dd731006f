"""The capture process as Wireshark runs it, through the placed launcher: FIFO, signals, every failure."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.extcap_launcher import ROOT, render_launcher
from tests.scripted_server import Script, ScriptedServer, answer_import, read_exactly, read_request, ret_submit
from tests.waiting import wait_until
from usbip_capture.capture.reader import read_capture
from usbip_capture.demo import DemoServer
from usbip_capture.hosts import Selector, Server
from usbip_capture.wire import structs

SHB = b"\x0a\x0d\x0d\x0a"
ISB = (5).to_bytes(4, "little")


@pytest.fixture(scope="module")
def extcap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_launcher(tmp_path_factory.mktemp("extcap"))


class Reader:
    """Reads a FIFO as dumpcap does, and keeps what came."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.data = b""
        self.opened = threading.Event()
        self.some = threading.Event()
        self.ended = threading.Event()
        self._leave = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with open(self.path, "rb", buffering=0) as fifo:
            self.opened.set()
            while not self._leave and (data := fifo.read(65536)):
                self.data += data
                if len(self.data) > 4000:
                    self.some.set()
                    if self._leave:
                        break
        self.ended.set()

    def leave_after_some(self) -> None:
        """Go away once some packets have come."""
        self._leave = True


@contextlib.contextmanager
def started(extcap: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run(extcap: Path, *options: str, timeout: float = 30) -> tuple[int, bytes, str]:
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def assert_sentence(stderr: str, *words: str) -> None:
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    for word in words:
        assert word in stderr


def assert_complete(data: bytes, tmp_path: Path) -> int:
    """A whole pcapng file with statistics at its end; how many packets it has."""
    path = tmp_path / "read-back.pcapng"
    path.write_bytes(data)
    assert data[:4] == SHB
    size = int.from_bytes(data[-4:], "little")
    assert data[-size:][:4] == ISB
    return len(list(read_capture(path)))


# -- captures that end well


def test_to_a_file(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    assert run(extcap, "--host", "demo", "--duration", "0.8", "--fifo", str(target)) == (0, b"", "")
    assert assert_complete(target.read_bytes(), tmp_path) > 40
    assert target.stat().st_mode & 0o777 == 0o600


def test_to_standard_output(extcap: Path, tmp_path: Path) -> None:
    code, out, err = run(extcap, "--host", "demo", "--duration", "0.5", "--fifo", "-")
    assert (code, err) == (0, "")
    assert assert_complete(out, tmp_path) > 20


def test_exactly_so_many_packets(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    assert run(extcap, "--host", "demo", "--count", "17", "--fifo", str(target)) == (0, b"", "")
    assert assert_complete(target.read_bytes(), tmp_path) == 17


def test_without_listening(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    options = ["--host", "demo", "--listen-in", "false", "--descriptors", "off", "--duration", "0.5"]
    assert run(extcap, *options, "--fifo", str(target)) == (0, b"", "")
    packets = list(read_capture(target))
    assert {p.data[10] & 0x0F for p in packets} == {0}
    assert len(packets) <= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_it_and_gives_the_device_back(extcap: Path, tmp_path: Path, number: signal.Signals) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    reader = Reader(tmp_path / "fifo")
    with started(extcap, "--host", "127.0.0.1", "--port", str(port), "--fifo", str(reader.path)) as process:
        assert reader.some.wait(20)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert reader.ended.wait(10)
    assert_complete(reader.data, tmp_path)
    wait_until("the device is free again", lambda: Server("127.0.0.1", port).devices())
    server.close()


def test_a_reader_that_goes_ends_it_also_when_idle(extcap: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "fifo")
    reader.leave_after_some()
    with started(extcap, "--host", "demo", "--listen-in", "off", "--fifo", str(reader.path)) as process:
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_stopped_while_nobody_has_opened_the_fifo(extcap: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started(extcap, "--host", "demo", "--fifo", str(fifo)) as process:
        # Its handlers are installed when it has a second thread, which looks for a reader.
        tasks = Path(f"/proc/{process.pid}/task")
        wait_until("the session's thread", lambda: len(list(tasks.iterdir())) > 1)
        process.terminate()
        assert process.wait(20) == 0


# -- failures: one sentence, a valid file, the fifo opened


def failing(extcap: Path, tmp_path: Path, *options: str) -> str:
    """Run with a FIFO; the sentence. Asserts all that must hold whatever fails."""
    reader = Reader(tmp_path / "fifo")
    code, out, err = run(extcap, *options, "--fifo", str(reader.path))
    assert reader.opened.wait(10)
    assert reader.ended.wait(10)
    assert code == 1
    assert out == b""
    assert reader.data[:4] == SHB
    assert_sentence(err)
    return err


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


WRONG_ARGUMENTS = {
    "no host": ([], "--host"),
    "port": (["--host", "demo", "--port", "99999"], "65535"),
    "not a number": (["--host", "demo", "--count", "many"], "--count"),
    "device": (["--host", "demo", "--device", "303a:xyz"], "303a:4004"),
    "mode": (["--host", "demo", "--mode", "relay"], "--mode"),
    "filter": (["--host", "demo", "--extcap-capture-filter", "bulk and"], "capture filter"),
    "misspelt option": (["--host", "demo", "--listen-inn", "off"], "--listen-inn"),
    "no option": (["--host", "demo", "extra"], "extra"),
    "unknown name": (["--host", "no-such-host.invalid"], "no-such-host.invalid"),
    "log file": (["--host", "demo", "--log-file", "/no/such/folder/log"], "/no/such/folder/log"),
    "unknown busid": (["--host", "demo", "--device", "9-9"], "1-1 (1209:0001)"),
    "unknown VID:PID": (["--host", "demo", "--device", "303a:4004"], "1-1 (1209:0001)"),
    "value missing": (["--host", "demo", "--port"], "--port"),
}


@pytest.mark.parametrize(("options", "words"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS.keys())
def test_wrong_arguments(extcap: Path, tmp_path: Path, options: list[str], words: str) -> None:
    assert words in failing(extcap, tmp_path, *options)


def test_refused(extcap: Path, tmp_path: Path) -> None:
    port = free_port()
    assert f"port {port}" in failing(extcap, tmp_path, "--host", "127.0.0.1", "--port", str(port))


def test_device_busy(extcap: Path, tmp_path: Path) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    device = Server("127.0.0.1", port).import_device(Selector("1-1"))
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "1-1"]
    assert "in use by another client" in failing(extcap, tmp_path, *options)
    device.close()
    server.close()


def import_then(words: Callable[[int], bytes]) -> Script:
    """A server whose device answers its second request with these bytes, and then closes."""

    def script(sock: socket.socket) -> None:
        answer_import(sock)
        _, seqnum, _, _ = read_request(sock)
        descriptor = bytes.fromhex("12 01 0002 000000 40 0912 0100 0001 00 00 00 01")
        sock.sendall(ret_submit(seqnum, 0, 18, descriptor))
        _, seqnum, _, _ = read_request(sock)
        sock.sendall(words(seqnum))

    return script


def answer(words: bytes) -> Script:
    def script(sock: socket.socket) -> None:
        read_exactly(sock, 8)
        sock.sendall(words)

    return script


HOSTILE_SERVERS = {
    "web server": (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not a USB/IP server"),
    "random bytes": (answer(bytes(range(100, 200))), "not a USB/IP server"),
    "wrong version": (answer(structs.OP_COMMON.pack(0x0199, 3, 0) + bytes(312)), "version 1.9.9"),
    "closes in mid-reply": (answer(structs.OP_COMMON.pack(0x0111, 3, 0) + bytes(10)), "middle of its reply"),
    "device error": (answer(structs.OP_COMMON.pack(0x0111, 3, 3)), "error state"),
    "closes in mid-PDU": (import_then(lambda n: ret_submit(n, 0, 9, bytes(9))[:50]), "middle of a message"),
    "closes in mid-capture": (import_then(lambda n: b""), "closed the connection"),
    "actual_length above the request": (import_then(lambda n: ret_submit(n, 0, 4096, bytes(4096))), "more than were"),
    "2 GiB": (import_then(lambda n: ret_submit(n, 0, 0x7FFFFFFF)), "more than were asked for"),
    "garbage in mid-capture": (import_then(lambda n: bytes(range(48, 96))), "unknown kind"),
}


@pytest.mark.parametrize(("script", "words"), HOSTILE_SERVERS.values(), ids=HOSTILE_SERVERS.keys())
def test_hostile_servers(extcap: Path, tmp_path: Path, script: Script, words: str) -> None:
    with ScriptedServer(script) as server:
        options = ["--host", "127.0.0.1", "--port", str(server.port), "--device", "1-1", "--reconnect", "off"]
        assert words in failing(extcap, tmp_path, *options)


def test_what_came_before_a_loss_is_kept(extcap: Path, tmp_path: Path) -> None:
    with ScriptedServer(import_then(lambda n: b"")) as server:
        target = tmp_path / "out.pcapng"
        options = ["--host", "127.0.0.1", "--port", str(server.port), "--device", "1-1", "--reconnect", "off"]
        code, _, err = run(extcap, *options, "--fifo", str(target))
    assert code == 1
    assert_sentence(err, "closed the connection")
    packets = list(read_capture(target))
    assert len(packets) == 4        # the second request comes back with -ESHUTDOWN
    assert any("gone" in comment for comment in packets[-1].comments)


def test_unwritable_target(extcap: Path, tmp_path: Path) -> None:
    code, _, err = run(extcap, "--host", "demo", "--fifo", str(tmp_path / "no" / "folder" / "x.pcapng"))
    assert code == 1
    assert_sentence(err, "no such folder")


def test_no_fifo(extcap: Path) -> None:
    code, _, err = run(extcap, "--host", "demo")
    assert code == 1
    assert_sentence(err, "--fifo")


# -- a library that does not load


def broken_library(tmp_path: Path, module: str) -> Path:
    library = tmp_path / "library"
    shutil.copytree(ROOT / "usbip_capture", library / "usbip_capture", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "usbip_capture" / module).write_text("import no_such_module\n")
    return render_launcher(tmp_path / "extcap", library)


@pytest.mark.parametrize("module", ["__init__.py", "extcap/main.py", "extcap/capture.py", "probe/session.py", "net.py"])
def test_a_library_that_does_not_load_leaves_no_pipe_unopened(tmp_path: Path, module: str) -> None:
    extcap = broken_library(tmp_path, module)
    control = tmp_path / "control"
    os.mkfifo(control)
    wrote = threading.Event()

    def wireshark() -> None:
        with open(control, "wb"):       # as the window does: blocks until the extcap opens it
            wrote.set()

    reader = Reader(tmp_path / "fifo")
    threading.Thread(target=wireshark, daemon=True).start()
    options = ["--host", "demo", "--extcap-control-in", str(control), "--fifo", str(reader.path)]
    code, _, err = run(extcap, *options)
    assert wrote.wait(10)
    assert reader.opened.wait(10)
    assert code == 1
    assert_sentence(err, "no_such_module", "install")
