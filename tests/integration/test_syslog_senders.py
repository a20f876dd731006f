"""Real senders: logger of util-linux, rsyslogd, Python's own handler, each started and collected from."""

from __future__ import annotations

import logging
import logging.handlers
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Messages, certificate, port_of
from tests.waiting import wait_until
from usbip_capture import SyslogReceiver
from usbip_capture.syslog.message import RFC3164, RFC5424

LOGGER = shutil.which("logger")
RSYSLOGD = shutil.which("rsyslogd") or shutil.which("rsyslogd", path="/usr/sbin:/sbin")
TEXT = "no network: \u00e4\u00f6 [3] <4>"


@contextmanager
def collecting(transport: str = "tcp", certificate_file: str = "") -> Iterator[tuple[SyslogReceiver, Messages, int]]:
    messages = Messages()
    with SyslogReceiver(listen=f"{transport}:127.0.0.1:0", callback=messages, certificate=certificate_file) as receiver:
        yield receiver, messages, port_of(receiver, transport)


# -- logger


def logger(port: int, *options: str, text: str = TEXT) -> None:
    assert LOGGER is not None
    command = [LOGGER, "--server", "127.0.0.1", "--port", str(port), "-p", "local3.err", "-t", "firmware", *options]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run([*command, "--", text], check=True, timeout=20, env=environment)


@pytest.mark.skipif(LOGGER is None, reason="logger is not installed")
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("octets", [False, True], ids=["plain", "octet-count"])
@pytest.mark.parametrize("format", ["rfc3164", "rfc5424"])
def test_logger(transport: str, octets: bool, format: str) -> None:
    with collecting(transport) as (receiver, messages, port):
        options = [f"--{transport}", f"--{format}", *(["--octet-count"] if octets else [])]
        logger(port, *options)
        logger(port, *options, "--id=4711", text="second")
        first, second = messages.wait(2)
    assert first.format == {"rfc3164": RFC3164, "rfc5424": RFC5424}[format]
    assert (first.facility, first.severity, first.severity_name) == (19, 3, "error")
    assert (first.app_name, first.text) == ("firmware", TEXT)
    assert first.hostname == socket.gethostname().split(".")[0] or first.hostname == socket.gethostname()
    assert first.timestamp
    assert (second.procid, second.text) == ("4711", "second")
    assert not first.flaw
    assert not second.flaw
    if format == "rfc5424":
        assert "timeQuality" in first.structured_data
        assert first.device_ns is not None
        assert abs(first.arrival_ns - first.device_ns) < 20_000_000_000
    assert receiver.counts.flaws() == []


@pytest.mark.skipif(LOGGER is None, reason="logger is not installed")
def test_structured_data_of_logger() -> None:
    with collecting() as (_, messages, port):
        options = ["--tcp", "--rfc5424=notq", "--octet-count", "--msgid", "ID47", "--sd-id", "esp@32473"]
        logger(port, *options, "--sd-param", r'core="0"', "--sd-param", r'path="C:\\x\"y\]"')
        (message,) = messages.wait(1)
    assert message.msgid == "ID47"
    assert message.structured_data == {"esp@32473": {"core": "0", "path": 'C:\\x"y]'}}
    assert message.text == TEXT


@pytest.mark.skipif(LOGGER is None, reason="logger is not installed")
def test_many_lines_of_logger_over_one_connection(tmp_path: Path) -> None:
    lines = [f"line {number} " + "x" * (number % 500) for number in range(3000)]
    source = tmp_path / "lines"
    source.write_text("\n".join(lines) + "\n")
    with collecting() as (receiver, messages, port):
        assert LOGGER is not None
        command = [LOGGER, "--server", "127.0.0.1", "--port", str(port), "--tcp", "--octet-count", "-f", str(source)]
        subprocess.run(command, check=True, timeout=30)
        messages.wait(3000)
    assert messages.texts == lines
    assert receiver.counts.flaws() == []


# -- rsyslogd


def configuration(folder: Path, action: str, ca: Path | None) -> Path:
    """Reads a socket of its own and forwards all of it."""
    tls = f'global(defaultNetstreamDriverCAFile="{ca}")\n' if ca else ""
    path = folder / "rsyslog.conf"
    path.write_text(
        f'global(workDirectory="{folder}")\n{tls}'
        f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{folder}/in")\n{action}\n'
    )
    return path


@contextmanager
def rsyslogd(folder: Path, action: str, ca: Path | None = None) -> Iterator[Path]:
    """A running rsyslogd; the path of the socket that it reads."""
    if RSYSLOGD is None:
        pytest.skip("rsyslogd is not installed")
    path = configuration(folder, action, ca)
    command = [RSYSLOGD, "-n", "-f", str(path), "-i", str(folder / "pid")]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield folder / "in"
    finally:
        process.terminate()
        process.wait(20)


def log(path: Path, messages: Messages, process_output: Path) -> None:
    """Log through the socket, as programs on that machine do, once rsyslogd has it open."""
    wait_until(f"rsyslogd: {process_output.read_text()}", path.exists)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(path))
        for number in range(3):
            sock.send(f"<155>firmware[4711]: line {number}".encode())
    messages.wait(3)


FORWARDS = {
    "tcp, lf": ("tcp", 'Protocol="tcp" Template="RSYSLOG_TraditionalForwardFormat"'),
    "tcp, octet-counted": (
        "tcp",
        'Protocol="tcp" TCP_Framing="octet-counted" Template="RSYSLOG_SyslogProtocol23Format"',
    ),
    "tcp, its own format": ("tcp", 'Protocol="tcp" Template="RSYSLOG_ForwardFormat"'),
    "udp": ("udp", 'Protocol="udp" Template="RSYSLOG_SyslogProtocol23Format"'),
}


@pytest.mark.parametrize(("transport", "how"), FORWARDS.values(), ids=FORWARDS.keys())
def test_rsyslogd(tmp_path: Path, transport: str, how: str) -> None:
    with collecting(transport) as (receiver, messages, port):
        action = f'action(type="omfwd" Target="127.0.0.1" Port="{port}" {how})'
        with rsyslogd(tmp_path, action) as path:
            log(path, messages, tmp_path / "output")
    assert_lines(messages)
    assert receiver.counts.flaws() == []


def test_rsyslogd_with_tls(tmp_path: Path) -> None:
    alone, both = certificate(tmp_path)
    with collecting("tls", str(both)) as (receiver, messages, port):
        action = (
            f'action(type="omfwd" Target="127.0.0.1" Port="{port}" Protocol="tcp" TCP_Framing="octet-counted" '
            'Template="RSYSLOG_SyslogProtocol23Format" StreamDriver="gtls" StreamDriverMode="1" '
            'StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="localhost")'
        )
        with rsyslogd(tmp_path, action, alone) as path:
            log(path, messages, tmp_path / "output")
    assert_lines(messages)
    assert receiver.counts.flaws() == []


def assert_lines(messages: Messages) -> None:
    assert [m.text.strip() for m in messages.all] == ["line 0", "line 1", "line 2"]
    for message in messages.all:
        assert (message.facility, message.severity) == (19, 3)
        assert (message.app_name, message.procid) == ("firmware", "4711")
        assert message.hostname
        assert message.timestamp


# -- Python


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("append_nul", [True, False])
def test_python_handler(transport: str, append_nul: bool) -> None:
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[transport]
    with collecting(transport) as (_, messages, port):
        handler = logging.handlers.SysLogHandler(
            ("127.0.0.1", port), logging.handlers.SysLogHandler.LOG_LOCAL3, socktype=kind
        )
        handler.append_nul = append_nul
        handler.ident = "firmware: "
        handler.setFormatter(logging.Formatter("%(message)s"))
        for level in (logging.ERROR, logging.WARNING):
            handler.handle(logging.LogRecord("x", level, "", 1, TEXT, (), None))
            if not append_nul and transport == "tcp":
                break  # nothing separates its messages then
        handler.close()
        found = messages.wait(1 if transport == "tcp" and not append_nul else 2)
    assert [(m.facility, m.severity) for m in found] == [(19, 3), (19, 4)][: len(found)]
    assert all((m.app_name, m.text) == ("firmware", TEXT) for m in found)
