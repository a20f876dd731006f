"""A terminal that is closed, or `kill`: what runs until Ctrl-C ends in order. And an output whose reader has gone."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Device
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import command_environment
from tests.waiting import wait_until
from usbip_capture.demo.device import DemoServer

hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals do not hang up here")


def started(folder: Path, *arguments: str, **more: object) -> subprocess.Popen[str]:
    environment = command_environment(folder)
    command = [sys.executable, "-W", "error", "-m", "usbip_capture.cli.main", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.Popen(command, cwd=folder, env=environment, **streams)  # type: ignore[call-overload, no-any-return]


def ended(process: subprocess.Popen[str], *numbers: int) -> str:
    """Send it these signals; what it prints at its end, which is a good one."""
    for number in numbers:
        process.send_signal(number)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    return err


@hangup
@pytest.mark.parametrize("numbers", [("SIGHUP",), ("SIGHUP", "SIGHUP"), ("SIGTERM", "SIGHUP")], ids="-".join)
def test_a_compressed_capture_is_complete(numbers: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng.gz"
    process = started(tmp_path, "capture", "demo", "-o", path.name)
    wait_until("packets", lambda: path.exists() and path.stat().st_size > 1000)
    err = ended(process, *(getattr(signal, name) for name in numbers))
    assert "0 dropped, in x.pcapng.gz" in err
    whole = tmp_path / "whole.pcapng"
    whole.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(list(read_capture(whole))) == int(err.split()[1])


@hangup
def test_a_log_that_is_captured_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "log.pcapng"
    process = started(tmp_path, "syslog", "demo", "--pcap", path.name, stdout=subprocess.DEVNULL)
    wait_until("messages", lambda: path.exists() and path.stat().st_size > 500)
    ended(process, signal.SIGHUP)
    assert list(read_capture(path))


@hangup
@pytest.mark.parametrize("command", ["relay", "demo"])
def test_servers_end_in_order(command: str, tmp_path: Path) -> None:
    more = ["127.0.0.1:9", "-o", "x.pcapng"] if command == "relay" else []
    process = started(tmp_path, command, *more, "--listen", "127.0.0.1:0")
    stream = process.stderr if command == "relay" else process.stdout
    assert stream is not None
    begun = "relaying" if command == "relay" else "Serving"
    while begun not in (output := stream.readline()):
        assert output, "it has ended"
    err = ended(process, signal.SIGHUP)
    assert "Traceback" not in err
    assert command == "demo" or re.search(r"0 packets( \(.*\))?, 0 dropped", err)


@hangup
def test_the_link_of_a_pseudo_terminal_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
    link = tmp_path / "tty"
    process = started(tmp_path, "serial", "demo", "--pty", str(link))
    assert process.stderr is not None
    assert "the serial port is at" in process.stderr.readline()
    assert link.is_symlink()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert not link.is_symlink()


@hangup
def test_nohup_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started(tmp_path, "capture", "demo", "-o", path.name)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until("packets", lambda: path.exists() and path.stat().st_size > 1000)
    process.send_signal(signal.SIGHUP)
    size = path.stat().st_size
    wait_until("more packets", lambda: path.stat().st_size > size)
    assert process.poll() is None
    ended(process, signal.SIGTERM)


@hangup
def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng.gz"
    ours, theirs = os.openpty()
    process = started(
        tmp_path, "capture", "demo", "--live", "-o", path.name,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    wait_until("packets", lambda: path.exists() and path.stat().st_size > 1000)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0
    gzip.decompress(path.read_bytes())


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_what_does_not_run_until_ctrl_c_reports_what_ended_it(number: str, tmp_path: Path) -> None:
    if not hasattr(signal, number):
        pytest.skip("there is no such signal here")
    path = tmp_path / "x.pcapng"
    process = started(tmp_path, "read", "demo", "--ep", "0x84", "--timeout", "0", "--pcap", path.name)
    wait_until("packets", lambda: path.exists() and path.stat().st_size > 1000)
    process.send_signal(getattr(signal, number))
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + getattr(signal, number), "")
    assert list(read_capture(path))


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_a_log_ends_when_tshark_has_seen_enough(tmp_path: Path) -> None:
    line = f"{sys.executable} -m usbip_capture.cli.main syslog demo --pcap - 2>/dev/null | tshark -r - -c 3"
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, env=command_environment(tmp_path), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 3


def test_a_log_without_messages_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    device = Device()
    process = started(tmp_path, "syslog", f"127.0.0.1:{device.port}", "--pcap", "-", text=False)
    with process, device.accept() as sock:
        assert process.stdout is not None
        sock.sendall(b"<14>hello\n")
        assert process.stdout.read(4) == b"\x0a\x0d\x0d\x0a"  # type: ignore[comparison-overlap]
        process.stdout.close()
        assert process.wait(30) == 0
    device.close()


def test_a_device_that_is_lost_and_back_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    server = DemoServer()
    address, port = server.listen("127.0.0.1", 0)
    process = started(tmp_path, "capture", f"{address}:{port}", "-o", path.name)
    wait_until("packets", lambda: path.exists() and path.stat().st_size > 1000)
    server.close()
    assert process.stderr is not None
    lost = process.stderr.readline()
    again = DemoServer()
    again.listen(address, port)
    back = process.stderr.readline()
    ended(process, signal.SIGTERM)
    again.close()
    assert "the connection" in lost
    assert "is back" in back
