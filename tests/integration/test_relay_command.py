"""`usbip-capture relay` as a person runs it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.cli.main import main
from usbip_capture.demo.device import DemoServer
from usbip_capture.live import registry

CODE = "from usbip_capture.cli.main import main; import sys; sys.exit(main())"


@pytest.fixture
def server() -> Iterator[str]:
    """HOST:PORT of a server on this machine."""
    with closing(DemoServer()) as demo:
        yield "{}:{}".format(*demo.listen("127.0.0.1", 0))


class Running:
    """The command, and what it prints on standard error."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stderr is not None
        self.first = ""
        while (found := re.search(r"relaying 127\.0\.0\.1:(\d+) to", self.first)) is None:
            line = process.stderr.readline().decode()
            assert line, self.first
            self.first += line
        self.port = int(found[1])

    def end(self) -> tuple[int, bytes, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err.decode()


@contextmanager
def relaying(*arguments: str) -> Iterator[Running]:
    command = [sys.executable, "-c", CODE, "relay", "--listen", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def use(port: int) -> None:
    with get_backend("127.0.0.1", port) as backend:
        device = usb.core.find(backend=backend)
        assert isinstance(device, usb.core.Device)
        assert device.product


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_file(name: str, server: str, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    with relaying(server, "-o", str(target)) as relay:
        assert f"to {server}; attach with: usbip --tcp-port {relay.port} attach -r 127.0.0.1 -b 1-1" in relay.first
        use(relay.port)
        relay.process.send_signal(getattr(signal, name))
        code, out, err = relay.end()
    assert (code, out) == (0, b"")
    records = list(read_capture(target))
    notes = sum(1 for record in records if record.interface.name == "notes0")
    output = f" (and {notes} with notes only)" if notes else ""
    assert f"{len(records) - notes} packets{output}, 0 dropped, in {target}" in err
    # What happens to a client is logged in its order.
    number = re.search(r"client (\d+), .*, has imported 1-1 \(1209:0001\)\n", err)
    assert number is not None
    assert err.index(f"client {number[1]}, 127") < number.start() < err.rindex(f"client {number[1]}, 127")
    assert re.search(rf"client {number[1]}, .*, is gone", err[number.end() :])
    assert len([record for record in records if record.interface.name == "usbip0"]) > 4


def test_standard_output_that_nobody_reads_any_more_cuts_nobody_off(server: str) -> None:
    with relaying(server, "-o", "-") as relay:
        backend = get_backend("127.0.0.1", relay.port)
        device = usb.core.find(backend=backend)
        assert isinstance(device, usb.core.Device)
        assert relay.process.stdout is not None
        assert relay.process.stdout.read(4) == b"\n\r\r\n"
        relay.process.stdout.close()
        assert relay.process.stderr is not None
        output = b""
        while b"nobody reads" not in output:
            assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
            output = relay.process.stderr.readline()
        assert b"ends when nobody is attached" in output
        assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
        backend.close()
        assert relay.process.wait(20) == 0


def test_stop(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    with relaying(server) as one, relaying(server) as other:
        assert main(["relay", "--stop", "--listen", f"127.0.0.1:{one.port}"]) == 0
        assert one.end()[0] == 0
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", one.port))  # it is free
        assert other.process.poll() is None
        assert main(["relay", "--stop"]) == 0
        assert other.end()[0] == 0
    wait_until("nothing is listed", lambda: not registry.running())
    assert main(["relay", "--stop"]) == 1
    assert "no relay of yours runs" in capsys.readouterr().err


@pytest.mark.slow
def test_one_that_hangs_does_not_keep_the_others_from_stopping(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    with relaying(server) as one, relaying(server) as other:
        first = min(one, other, key=lambda relay: f"usbip-relay-{relay.port}")
        last = other if first is one else one
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            assert main(["relay", "--stop"]) == 3
            assert last.end()[0] == 0
            assert f"does not answer: wait, or end its process, {first.process.pid}" in capsys.readouterr().err
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        assert main(["relay", "--stop"]) in (0, 1, 3)  # or it has read what was sent before
        assert first.end()[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_has_an_exit_code(server: str) -> None:
    with relaying(server, "-o", "/dev/full") as relay:
        code, _, err = relay.end()
    assert code == 1
    assert "the disk is full" in err.splitlines()[-1]


def test_standard_error_that_nobody_reads_cuts_nobody_off(server: str) -> None:
    with relaying(server) as relay:
        assert relay.process.stderr is not None
        relay.process.stderr.close()
        use(relay.port)
        use(relay.port)


def test_standard_error_that_is_held_up_holds_nobody_up(server: str) -> None:
    with relaying(server) as relay:
        assert relay.process.stderr is not None
        fcntl.fcntl(relay.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(60):  # two lines each: more than the pipe takes, and nobody reads it
            with socket.create_connection(("127.0.0.1", relay.port), 10) as sock:
                sock.sendall(struct.pack(">HHI", 0x111, 0x8005, 0))
                assert sock.recv(4)
        use(relay.port)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["127.0.0.1:1", "--listen", "0.0.0.0:0"], 2, "no authentication"),
        (["127.0.0.1:1", "--listen", "0.0.0.0:0", "--allow", "everybody"], 2, "'everybody' is not a client"),
        (["127.0.0.1:1", "--listen", "192.0.2.1:0", "--allow", "192.0.2.0/24"], 1, "has no such address"),
        (["127.0.0.1:1", "--listen", "127.0.0.1:99999"], 2, "99999 is not a TCP port"),
        (["--stop", "--listen", "127.0.0.1:99999"], 2, "99999 is not a TCP port"),
        (["127.0.0.1:1", "--listen", "127.0.0.1:0", "-o", "/nowhere/x.pcapng"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["relay", *arguments]) == code
    output = capsys.readouterr().err
    assert words in output.splitlines()[-1]


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["pi", "--record-unlinks"], ["--stop", "pi"], ["--stop", "-o", "x"]):
        assert main(["relay", *arguments]) == 2
    assert "name the server" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_reported() -> None:
    with relaying("127.0.0.1:1") as relay:
        assert "-b BUSID" in relay.first
        assert "nothing listens on 127.0.0.1 port 1" in relay.first
