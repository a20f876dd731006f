"""`usbip-capture serial`: its terminal, pseudo-terminals, TCP and RFC 2217, each with a real program or pyserial."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.micropython_board import MicroPythonBoard
from tests.fakes.serial_server import SerialServer, serial_server
from tests.oracles.pcapng_reader import read_capture
from tests.programs.usbip_ports import environment
from tests.waiting import wait_until
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback
from usbip_capture.usb.urb import TransferType

serial = pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")


def command(server: SerialServer, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "usbip_capture.cli.main", "serial", f"127.0.0.1:{server.port}", *arguments]


@contextmanager
def served(server: SerialServer, folder: Path, *arguments: str) -> Iterator[str]:
    """Where the command reports the port to be; it must end well when it is stopped."""
    process = subprocess.Popen(
        command(server, *arguments), env=environment(folder), stderr=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stderr is not None
    try:
        output = process.stderr.readline()
        where = re.search(r"is at (\S+),", output)
        assert where, output + process.stderr.read()
        yield where[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, 130)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


class Screen:
    """A program in a pseudo-terminal: what it shows, and keys for it."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self.shown = ""
        ours, theirs = pty.openpty()
        self._ours = ours
        self.process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        os.set_blocking(ours, False)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def shows(self, text: str) -> bool:
        try:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return text in self.shown

    def wait_for(self, text: str) -> None:
        try:
            wait_until(f"the program shows {text!r}", lambda: self.shows(text), 20)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {self.shown!r}") from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def screen(arguments: list[str], env: dict[str, str]) -> Iterator[Screen]:
    program = Screen(arguments, env)
    try:
        yield program
    finally:
        program.close()


def test_the_terminal_types_and_shows(tmp_path: Path) -> None:
    capture = tmp_path / "session.pcapng"
    with (
        serial_server() as server,
        screen(command(server, "1-1", "--baud", "921600", "--pcap", str(capture)), environment(tmp_path)) as program,
    ):
        program.wait_for("--- Quit: Ctrl+] | Menu: Ctrl+T")
        program.type("hello\r")
        program.wait_for("hello")
        assert server.line.settings.baudrate == 921600
        program.type("\x1d")
        assert program.process.wait(10) == 0
    packets = [packet.usb for packet in read_capture(capture) if packet.usb]
    sent = b"".join(bytes(usb.data) for usb in packets if usb.xfer_type == TransferType.BULK and usb.epnum == 0x02)
    assert sent == b"hello\r\n"


def test_miniterm_itself_opens_our_urls(tmp_path: Path) -> None:
    with (
        serial_server() as server,
        screen(
            [sys.executable, "-m", "serial.tools.miniterm", server.url(), "115200"], environment(tmp_path)
        ) as program,
    ):
        program.wait_for("--- Quit: Ctrl+]")
        program.type("abc")
        program.wait_for("abc")
        program.type("\x1d")
        assert program.process.wait(10) == 0


def test_mpremote_runs_code_and_has_a_prompt(tmp_path: Path) -> None:
    pytest.importorskip("mpremote", reason="mpremote, of the dependency group `test`, is not installed")
    mpremote = [sys.executable, "-m", "mpremote", "connect"]
    with serial_server(acm(MicroPythonBoard())) as server:
        env = environment(tmp_path)
        done = subprocess.run(
            [*mpremote, server.url(), "exec", "print(6 * 7)"], env=env, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.stdout.strip() == "42", done.stderr
        with screen([*mpremote, server.url(), "repl"], env) as program:
            program.wait_for("Connected to MicroPython")
            program.type("print(1, 'and', 2)\r")
            program.wait_for("1 and 2")
            program.type("\x18")  # Ctrl-X
            assert program.process.wait(10) == 0


def test_what_is_wrong_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with serial_server() as server:
        done = subprocess.run(
            command(server, "9-9", "--tcp", "0"), env=environment(tmp_path), capture_output=True, text=True, check=False
        )
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "9-9" in done.stderr
    assert "1-1 (1209:0001)" in done.stderr


@pytest.mark.parametrize("speed", ["-5", "0", "fast", "4294967296"])
def test_a_speed_that_is_not_one_is_reported(tmp_path: Path, speed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "usbip_capture.cli.main", "serial", "demo", f"--baud={speed}", "--tcp", "0"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usbip-capture serial: --baud must be ")
    assert done.stderr.endswith(f"not {speed if speed != 'fast' else repr(speed)}\n")


def test_a_terminal_is_not_started_without_one(tmp_path: Path) -> None:
    with serial_server() as server:
        done = subprocess.run(
            command(server), env=environment(tmp_path), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "--pty" in done.stderr


def test_a_pseudo_terminal_is_a_port_for_programs_that_open_paths(tmp_path: Path) -> None:
    link = tmp_path / "tty"
    with serial_server() as server, served(server, tmp_path, "1-1", "--pty", str(link)) as path:
        assert path == str(link)
        with serial.Serial(path, 57600, timeout=10) as port:
            port.write(b"through a path\n")
            assert port.readline() == b"through a path\n"
            assert server.line.settings.baudrate == 57600
        with serial.Serial(path, 115200, timeout=10) as port:
            port.write(b"again\n")
            assert port.readline() == b"again\n"
    assert not link.exists()


def test_a_tcp_port_carries_bytes_for_one_client_after_the_other(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1024
    with serial_server() as server, served(server, tmp_path, "1-1", "--tcp", "0") as where:
        host, _, port = where.rpartition(":")
        for _ in range(2):
            with socket.create_connection((host, int(port)), 10) as sock:
                got = bytearray()
                for at in range(0, len(data), 16384):
                    sock.sendall(data[at : at + 16384])
                    while len(got) < min(at + 16384, len(data)):
                        got += sock.recv(65536)
                assert bytes(got) == data


def test_a_client_that_has_sent_all_gets_the_answer(tmp_path: Path) -> None:
    with serial_server() as server, served(server, tmp_path, "1-1", "--tcp", "0") as where:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2])), 10) as sock:
                sock.sendall(b"echo AT | nc")
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while data := sock.recv(100):
                    answer += data
            assert answer == b"echo AT | nc"


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial 3.5's own
def test_rfc_2217_ends_with_a_client_that_is_gone_while_the_device_talks(tmp_path: Path) -> None:
    with serial_server() as server, served(server, tmp_path, "1-1", "--rfc2217", "0") as where:
        with socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2])), 10) as sock:
            sock.sendall(b"x")
            assert sock.recv(100)
        server.line.send(bytes(100_000))
        with serial.serial_for_url(f"rfc2217://{where}", timeout=10) as port:
            port.reset_input_buffer()
            port.write(b"the next one")
            assert port.read_until(b"the next one").endswith(b"the next one")


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial 3.5's own
def test_rfc_2217_carries_settings_and_modem_lines(tmp_path: Path) -> None:
    with serial_server(ftdi([Loopback()])) as server, served(server, tmp_path, "1-1", "--rfc2217", "0") as where:
        with serial.serial_for_url(f"rfc2217://{where}", 19200, timeout=10, parity="E") as port:
            line = server.line
            assert (round(line.settings.baudrate, -2), line.settings.parity) == (19200, "E")
            port.write(b"\xff escaped \xff\n")
            assert port.readline() == b"\xff escaped \xff\n"
            port.rts = False
            wait_until("RTS is off", lambda: not line.rts)
            wait_until("CTS follows", lambda: not port.cts)
        wait_until("the settings are those of the beginning", lambda: server.line.settings.parity == "N")
