"""`usbip-capture syslog` and the demo's log, as processes."""

from __future__ import annotations

import json
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

from tests.fakes.syslog_senders import Device, esp
from tests.oracles.pcapng_reader import read_capture

ROOT = Path(__file__).parents[2]
CLOCK = r"\d\d:\d\d:\d\d\.\d{3}"


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-m", "usbip_capture.cli.main", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment, encoding="utf-8")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """End it; what it printed on standard error."""
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
    return err


def test_for_scripts(device: Device) -> None:
    with command("syslog", f"127.0.0.1:{device.port}", "--json") as process, device.accept() as sock:
        sock.sendall(b"<28>1 - pi app - - - two\x07\xc3\xa4\n<27>1 - pi app - - - x\xe2\x80\xaey\n")
        found = [json.loads(line) for line in lines(process, 2)]
        stop(process)
    assert [(m["severity"], m["hostname"], m["app_name"], m["text"]) for m in found] == [
        ("warning", "pi", "app", "two\x07\u00e4"),
        ("error", "pi", "app", "x\u202ey"),
    ]


def test_nothing_turns_a_line_around(device: Device) -> None:
    with command("syslog", f"127.0.0.1:{device.port}") as process, device.accept() as sock:
        sock.sendall(b"<27>1 - pi app - - - x\xe2\x80\xaey\n")
        assert lines(process, 1)[0].endswith("app: x\\u202ey\n")
        stop(process)


def test_lines_with_severity_and_time(device: Device) -> None:
    with command("syslog", f"127.0.0.1:{device.port}") as process, device.accept() as sock:
        sock.sendall(esp(7, "E (7) wifi: no network", 3) + b"<28>1 - pi app - - - two\nlines" + b"\x07\xc3\xa4\n")
        found = lines(process, 3)
        err = stop(process)
    assert re.fullmatch(rf"{CLOCK} error     E \(7\) wifi: no network\n", found[0])
    assert re.fullmatch(rf"{CLOCK} warning   app: two\n", found[1])
    assert re.fullmatch(rf"{CLOCK} warning   lines\\x07\u00e4\n", found[2])
    assert "reading the log of 127.0.0.1" in err


def test_colours_and_severities(device: Device) -> None:
    options = ["--level", "warning", "--colour", "always"]
    with command("syslog", "127.0.0.1", "--port", str(device.port), *options) as process, device.accept() as sock:
        sock.sendall(b"I (1) a: not shown\nE (2) a: red\nW (3) a: yellow\n")
        found = lines(process, 2)
        stop(process, signal.SIGTERM)
    assert [re.sub(CLOCK, "T", line) for line in found] == [
        "\x1b[31mT error     E (2) a: red\x1b[0m\n",
        "\x1b[33mT warning   W (3) a: yellow\x1b[0m\n",
    ]


def test_listening_and_capturing(tmp_path: Path) -> None:
    target = tmp_path / "log.pcapng"
    with command("syslog", "--listen", "tcp:127.0.0.1:0", "--pcap", str(target)) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"<14>hello\n99999999999 <13>wrong\n")
            found = lines(process, 2)
        err = stop(process)
    assert re.fullmatch(rf"{CLOCK} 127\.0\.0\.1 info      hello\n", found[0])
    assert found[1].endswith("wrong (its octet count is wrong)\n")
    assert "of 2 messages: 1 with a wrong octet count" in err
    assert [record.interface.name for record in read_capture(target)] == ["syslog0", "syslog0"]


def test_a_capture_on_standard_output(device: Device, tmp_path: Path) -> None:
    target = tmp_path / "log.pcapng"
    with target.open("wb") as output:
        line = [sys.executable, "-m", "usbip_capture.cli.main", "syslog", f"127.0.0.1:{device.port}", "--pcap", "-"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
        with process, device.accept() as sock:
            sock.sendall(b"<14>hello\n")
            assert process.stderr is not None
            while not process.stderr.readline().endswith("info      hello\n"):
                pass
            stop(process)
    assert [record.interface.name for record in read_capture(target)] == ["syslog0"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_capture_that_cannot_be_written_any_more_is_reported_at_once(device: Device) -> None:
    with command("syslog", f"127.0.0.1:{device.port}", "--pcap", "/dev/full") as process, device.accept() as sock:
        while process.poll() is None:
            try:
                sock.sendall(b"<14>hello\n")
            except OSError:  # it has ended
                break
            lines(process, 1)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the disk is full" in err


def test_the_reader_of_the_output_ends(device: Device) -> None:
    with command("syslog", f"127.0.0.1:{device.port}") as process, device.accept() as sock:
        assert process.stdout is not None
        process.stdout.close()
        sock.sendall(b"<14>x\n")
        assert process.wait(20) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "give either HOST to connect to, or --listen"),
        (["pi", "--listen"], 2, "give either HOST to connect to, or --listen"),
        (["--listen", "x:y"], 2, "is not a place to listen"),
        (["--listen", "tls:127.0.0.1:0"], 2, "needs a certificate"),
        (["--listen", "name.invalid:0"], 1, "the address is not known"),
        (["pi", "--align"], 2, "add --pcap"),
        (["--listen", "--certificate", "x.pem"], 2, "add --listen tls:"),
        (["--listen", "192.0.2.1:0"], 1, "no such address"),
        (["pi", "--pcap", "/no/such/folder/x"], 1, "no such folder"),
        (["pi:99999"], 2, "99999 is not a TCP port"),
    ],
)
def test_what_cannot_be(arguments: list[str], code: int, words: str) -> None:
    with command("syslog", *arguments) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_device_that_is_not_there_is_waited_for() -> None:
    with command("syslog", "127.0.0.1", "--port", "9") as process:
        assert process.stderr is not None
        assert "trying again until it is there: nothing listens on 127.0.0.1 port 9" in process.stderr.readline()
        stop(process)


def test_the_demo_offers_its_log() -> None:
    with command("demo", "--listen", "127.0.0.1:0", "--syslog-listen", "127.0.0.1:0") as demo:
        where = lines(demo, 4)[3].split()[-1]
        with command("syslog", where) as process:
            assert re.fullmatch(rf"{CLOCK} debug     D \(\d+\) main: alive\n", lines(process, 1)[0])
            stop(process)


def test_the_log_port_of_the_demo_is_taken(device: Device) -> None:
    with command("demo", "--listen", "127.0.0.1:0", "--syslog-listen", f"127.0.0.1:{device.port}") as demo:
        _, err = demo.communicate(timeout=20)
    assert demo.returncode == 1
    assert "the demo's log cannot listen" in err
