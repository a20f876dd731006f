"""Every failure of a capture process: one sentence, a valid file, no pipe left unopened."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes.scripted_server import Script, ScriptedServer, answer_import, read_exactly, read_request, ret_submit
from tests.oracles.pcapng_reader import read_capture
from tests.programs.extcap_launcher import ROOT, render_launcher
from tests.programs.extcap_runs import Reader, assert_sentence, failing, run
from tests.programs.sshd import free_port
from usbip_capture.demo.device import DemoServer
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.wire import structs

# -- failures: one sentence, a valid file, the fifo opened


WRONG_ARGUMENTS = {
    "no host": ([], "--host"),
    "port": (["--host", "demo", "--port", "99999"], "65535"),
    "not a number": (["--host", "demo", "--count", "many"], "--count"),
    "device": (["--host", "demo", "--device", "303a:xyz"], "303a:4004"),
    "mode": (["--host", "demo", "--mode", "hover"], "--mode"),
    "filter": (["--host", "demo", "--extcap-capture-filter", "bulk and"], "capture filter"),
    "misspelt option": (["--host", "demo", "--listen-inn", "off"], "--listen-inn"),
    "no option": (["--host", "demo", "extra"], "extra"),
    "value missing": (["--host", "demo", "--port"], "--port"),
    "port of the host": (["--host", "demo:0"], "0 is not a TCP port"),
    "all and one more": (["--host", "demo", "--device", "1-1,all"], "give all, auto, or busids"),
    "help": (["--help"], "leave --capture and --fifo out"),
    "two jobs": (["--host", "demo", "--install"], "--install"),
}
NOT_THERE = {
    "unknown name": (["--host", "no-such-host.invalid"], "no-such-host.invalid"),
    "log file": (["--host", "demo", "--log-file", "/no/such/folder/log"], "/no/such/folder/log"),
    "unknown busid": (["--host", "demo", "--device", "9-9"], "1-1 (1209:0001)"),
    "unknown VID:PID": (["--host", "demo", "--device", "303a:4004"], "1-1 (1209:0001)"),
}


@pytest.mark.parametrize(("options", "words"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS.keys())
def test_wrong_arguments(extcap: Path, tmp_path: Path, options: list[str], words: str) -> None:
    assert words in failing(extcap, tmp_path, *options, status=2)


@pytest.mark.parametrize(("options", "words"), NOT_THERE.values(), ids=NOT_THERE.keys())
def test_what_is_not_there(extcap: Path, tmp_path: Path, options: list[str], words: str) -> None:
    assert words in failing(extcap, tmp_path, *options)


def test_refused(extcap: Path, tmp_path: Path) -> None:
    port = free_port()
    assert f"port {port}" in failing(extcap, tmp_path, "--host", "127.0.0.1", "--port", str(port))


def test_device_busy(extcap: Path, tmp_path: Path) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    device = ServerAddress("127.0.0.1", port).import_device(Selector("1-1"))
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
    assert len(packets) == 4  # the second request comes back with -ESHUTDOWN
    assert any("gone" in comment for comment in packets[-1].comments)


def test_unwritable_target(extcap: Path, tmp_path: Path) -> None:
    code, _, err = run(extcap, "--host", "demo", "--fifo", str(tmp_path / "no" / "folder" / "x.pcapng"))
    assert code == 1
    assert_sentence(err, "no such folder")


def test_no_fifo(extcap: Path) -> None:
    code, _, err = run(extcap, "--host", "demo")
    assert code == 2
    assert_sentence(err, "--fifo")


# -- a library that does not load

BROKEN = (
    "__init__.py", "extcap/main.py", "extcap/guard.py", "extcap/capture.py", "probe/session.py", "net/__init__.py",
)  # fmt: skip


def broken_library(folder: Path, module: str) -> Path:
    library = folder / "library"
    shutil.copytree(ROOT / "usbip_capture", library / "usbip_capture", ignore=shutil.ignore_patterns("__pycache__"))
    assert (library / "usbip_capture" / module).exists()
    (library / "usbip_capture" / module).write_text("import no_such_module\n")
    return render_launcher(folder / "extcap", library)


def without(module: str, folder: Path) -> tuple[int, bool, str]:
    """Exit code, whether both pipes were opened, and what is on standard error."""
    folder.mkdir()
    control = folder / "control"
    os.mkfifo(control)
    wrote, ended = threading.Event(), threading.Event()

    def wireshark() -> None:
        with open(control, "wb"):  # as the window does: blocks until the extcap opens it, and keeps it
            wrote.set()
            ended.wait(60)

    reader = Reader(folder / "fifo")
    threading.Thread(target=wireshark, daemon=True).start()
    options = ["--host", "demo", "--extcap-control-in", str(control), "--fifo", str(reader.path)]
    code, _, err = run(broken_library(folder, module), *options, timeout=60)
    opened = wrote.wait(30) and reader.opened.wait(30)
    ended.set()
    return code, opened, err


def test_a_library_that_does_not_load_leaves_no_pipe_unopened(tmp_path: Path) -> None:
    """All at once, for each waits as long as Wireshark may need to open its end."""
    with ThreadPoolExecutor(len(BROKEN)) as pool:
        folders = [tmp_path / str(number) for number in range(len(BROKEN))]
        for module, (code, opened, err) in zip(BROKEN, pool.map(without, BROKEN, folders), strict=True):
            assert (module, code, opened) == (module, 1, True)
            assert_sentence(err, "no_such_module", "install")


def test_a_file_is_not_touched_before_there_is_a_device(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious.pcapng"
    target.write_bytes(b"precious")
    for options, status in (([], 2), (["--host", "no-such-host.invalid"], 1), (["--host", "demo", "--port", "x"], 2)):
        code, _, _ = run(extcap, *options, "--fifo", str(target))
        assert code == status
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "words", [b"", structs.OP_COMMON.pack(0x0111, structs.OP_REP_IMPORT, 0)], ids=["silent", "cut"]
)
def test_a_duration_is_kept_while_a_device_is_imported(extcap: Path, tmp_path: Path, words: bytes) -> None:
    """A server that never ends its answer, and more time to wait for it than the test has."""
    ended = threading.Event()

    def never_done(sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(words)
        ended.wait(60)

    with ScriptedServer(never_done) as server:
        where = ["--host", "127.0.0.1", "--port", str(server.port), "--device", "1-1", "--duration", "0.5"]
        assert "within the 0.5 s of --duration" in failing(extcap, tmp_path, *where)
        ended.set()


def test_a_duration_does_not_hide_that_nothing_was_captured(extcap: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        fifo = str(tmp_path / "out.pcapng")
        code, _, err = run(extcap, "--host", "127.0.0.1", "--port", port, "--duration", "0.5", "--fifo", fifo)
    assert code == 1
    assert_sentence(err, "does not answer")


def test_a_disk_that_gets_full_leaves_whole_packets(extcap: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no limits for files")
    target = tmp_path / "out.pcapng"
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", "--host", "demo", "--fifo", str(target)]
    limit = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", limit, *command], capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert_sentence(done.stderr.decode(), "too large")
    assert len(list(read_capture(target))) > 10
    assert target.stat().st_size <= 6000


def test_closed_standard_streams(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    base = f"exec '{extcap}' --capture --extcap-interface usbip-remote --host demo --count 4 --fifo"
    done = subprocess.run(["sh", "-c", f"{base} '{target}' <&- >&- 2>&-"], check=False, timeout=60)
    assert done.returncode == 0
    assert len(list(read_capture(target))) == 4
    err = tmp_path / "err"
    done = subprocess.run(["sh", "-c", f"{base} - >&- 2>'{err}'"], check=False, timeout=60)
    assert done.returncode == 1
    assert_sentence(err.read_text(), "standard output is closed")
