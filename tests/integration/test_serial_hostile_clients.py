"""`usbip-capture serial --tcp` and `--rfc2217`: a client that misbehaves costs itself, and nobody after it."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.serial_server import SerialServer, serial_server
from tests.programs.usbip_ports import environment

serial = pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")

IAC, SB, SE = b"\xff", b"\xfa", b"\xf0"


def option(body: bytes) -> bytes:
    return IAC + SB + body + IAC + SE


HOSTILE = {
    "baud rate of one byte": option(b"\x2c\x01\x01"),
    "baud rate that no chip has": option(b"\x2c\x01\xfe\xff\xff\xff"),
    "parity 77": option(b"\x2c\x03\x4d"),
    "stop bits 77": option(b"\x2c\x04\x4d"),
    "data size without a value": option(b"\x2c\x02"),
    "end without a beginning": IAC + SE,
    "an option without an end": IAC + SB + b"x" * 100_000,
    "only a beginning": IAC + SB,
    "unknown commands": IAC + b"\x05" + IAC + b"\xfb\x63" + option(b"\x63") + option(b""),
    "random": random.Random(7).randbytes(20_000),
}


@contextlib.contextmanager
def bridge(server: SerialServer, folder: Path, kind: str) -> Iterator[tuple[str, int, subprocess.Popen[str]]]:
    """The command, serving; it must still run at the end."""
    command = [sys.executable, "-m", "usbip_capture.cli.main", "serial", f"127.0.0.1:{server.port}", "1-1", kind, "0"]
    process = subprocess.Popen(command, env=environment(folder), stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stderr is not None
    try:
        host, _, port = process.stderr.readline().split(" is at ")[1].split(",")[0].rpartition(":")
        yield host, int(port), process
        assert process.poll() is None, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def read_to_end(sock: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


def echoed(host: str, port: int, line: bytes = b"hello\n") -> bytes:
    """What a good client of --tcp gets for its line."""
    with socket.create_connection((host, port), 20) as sock:
        sock.sendall(line)
        sock.shutdown(socket.SHUT_WR)
        return read_to_end(sock)


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial 3.5's own
def test_no_client_of_rfc_2217_ends_it(tmp_path: Path) -> None:
    with serial_server() as server, bridge(server, tmp_path, "--rfc2217") as (host, port, process):
        for name, words in HOSTILE.items():
            with socket.create_connection((host, port), 10) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(words)
                    sock.shutdown(socket.SHUT_WR)
                assert b"in use" not in read_to_end(sock), name
            assert process.poll() is None, name
        with serial.serial_for_url(f"rfc2217://{host}:{port}", timeout=10) as good:
            good.write(b"still here\n")
            assert good.read_until(b"still here\n").endswith(b"still here\n")


def test_a_client_that_is_disconnected_is_reported_in_a_sentence(tmp_path: Path) -> None:
    with serial_server() as server, bridge(server, tmp_path, "--rfc2217") as (host, port, process):
        with socket.create_connection((host, port), 10) as sock:
            sock.sendall(option(b"\x2c\x03\x4d"))
            read_to_end(sock)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("a client was disconnected: what it sent is not RFC 2217")


def test_a_second_client_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with serial_server() as server, bridge(server, tmp_path, "--tcp") as (host, port, process):
        with socket.create_connection((host, port), 10) as first:
            first.sendall(b"x")
            assert first.recv(10) == b"x"
            with socket.create_connection((host, port), 10) as second:
                assert b"in use by another client" in read_to_end(second)
            assert process.stderr is not None
            assert "is refused: the serial port is in use by another client" in process.stderr.readline()
            first.sendall(b"y")
            assert first.recv(10) == b"y"
        assert echoed(host, port) == b"hello\n"


def test_what_a_client_has_left_behind_is_not_for_the_next_one(tmp_path: Path) -> None:
    """It fills the loop, the port and the connection, reads nothing, and leaves."""
    with serial_server() as server, bridge(server, tmp_path, "--tcp") as (host, port, _):
        with socket.create_connection((host, port), 10) as flood:
            flood.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    flood.sendall(bytes(65536))
        assert echoed(host, port) == b"hello\n"
