"""The device's log through the capture process: beside USB, alone, listening, and when there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Device, esp
from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_capture, read_items
from tests.programs.extcap_runs import Reader, assert_complete, assert_sentence, run, started
from tests.waiting import wait_until
from usbip_capture.demo.device import DemoServer
from usbip_capture.records.upper_pdu import parse_upper_pdu

MS = 1_000_000


def logged(path: Path) -> list[bytes]:
    """Payloads of the interface syslog0."""
    records = [record for record in read_capture(path) if record.interface.name == "syslog0"]
    return [pdu.payload for record in records if (pdu := parse_upper_pdu(record.data))]


def test_usb_and_log_in_one_capture_in_time_order(extcap: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "fifo")
    assert run(extcap, "--host", "demo", "--syslog", "--duration", "1.5", "--fifo", str(reader.path)) == (0, b"", "")
    assert reader.ended.wait(10)
    assert assert_complete(reader.data, tmp_path) > 60
    records = list(read_capture(tmp_path / "read-back.pcapng"))
    assert {record.interface.name for record in records} == {"syslog0", "usbip0"}
    latest = 0
    for record in records:
        assert record.timestamp_ns > latest - 50 * MS
        latest = max(latest, record.timestamp_ns)
    lines = logged(tmp_path / "read-back.pcapng")
    assert any(line.endswith(b"usb: configuration 1") for line in lines)
    # In step: each key that was typed is logged within 50 ms of its report, which is one of its packets.
    keys = [r for r in records if r.usb and r.usb.type == ord("C") and r.usb.epnum == 0x83 and r.data[66:67] > b"\0"]
    reported = [r for r in records if r.interface.name == "syslog0" and b"keyboard: key" in r.data]
    assert len(reported) >= 4
    for key, line in zip(keys, reported, strict=False):
        assert line.data[-1:] == bytes([key.data[66] - 4 + ord("a")])
        assert abs(line.timestamp_ns - key.timestamp_ns) < 50 * MS


def test_to_a_file(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    assert run(extcap, "--host", "demo", "--syslog=connect", "--duration", "1", "--fifo", str(target))[0] == 0
    assert len(logged(target)) >= 2


def test_the_log_alone(extcap: Path, tmp_path: Path, device: Device) -> None:
    reader = Reader(tmp_path / "fifo")
    options = ["--host", "127.0.0.1", "--mode", "syslog", "--syslog-port", str(device.port), "--syslog-level", "info"]
    with started(extcap, *options, "--fifo", str(reader.path)) as process, device.accept() as sock:
        sock.sendall(esp(1, "I (1) a: one") + esp(2, "D (2) a: two", 7) + esp(3, "E (3) a: three", 3))
        wait_until("two messages", lambda: reader.data.count(b"esp32 esp") == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert reader.ended.wait(10)
    assert assert_complete(reader.data, tmp_path) == 2


def test_listening_beside_usb(extcap: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reader = Reader(tmp_path / "fifo")
    options = ["--host", "demo", "--syslog", "listen", "--syslog-listen", f"udp:127.0.0.1:{port}"]
    with started(extcap, *options, "--fifo", str(reader.path)) as process:
        assert reader.some.wait(20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"<14>from afar", ("127.0.0.1", port))
        wait_until("the message", lambda: b"from afar" in reader.data)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert reader.ended.wait(10)
    assert_complete(reader.data, tmp_path)
    assert logged(tmp_path / "read-back.pcapng") == [b"<14>from afar"]


def test_a_log_port_that_is_closed_ends_nothing(extcap: Path, tmp_path: Path) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    target, log = tmp_path / "out.pcapng", tmp_path / "log"
    options = ["--host", "127.0.0.1", "--port", str(port), "--syslog", "--syslog-port", "9", "--log-file", str(log)]
    assert run(extcap, *options, "--duration", "1", "--fifo", str(target)) == (0, b"", "")
    assert "nothing listens on 127.0.0.1 port 9" in log.read_text()
    assert log.read_text().count("WARNING") == 1
    interfaces = {item.name: item for item in read_items(target) if isinstance(item, CapturedInterface)}
    assert interfaces["syslog0"].received == 0
    assert sum(isinstance(item, CapturedRecord) for item in read_items(target)) > 40
    server.close()


def test_a_person_at_a_terminal_is_warned(extcap: Path, tmp_path: Path) -> None:
    terminal, theirs = os.openpty()
    options = ["--host", "127.0.0.1", "--mode", "syslog", "--syslog-port", "9", "--fifo", str(tmp_path / "out.pcapng")]
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        output = b""
        while b"nothing listens on 127.0.0.1 port 9" not in output:
            output += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    os.close(terminal)
    assert b"Warning: no log of 127.0.0.1 now, trying again" in output


def test_lines_in_the_log_window(extcap: Path, tmp_path: Path, device: Device) -> None:
    control = tmp_path / "control"
    os.mkfifo(control)
    shown = bytearray()

    def window() -> None:
        with open(control, "rb", buffering=0) as pipe:
            while data := pipe.read(4096):
                shown.extend(data)

    threading.Thread(target=window, daemon=True).start()
    reader = Reader(tmp_path / "fifo")
    options = ["--host", "127.0.0.1", "--mode", "syslog", "--syslog-port", str(device.port)]
    options += ["--extcap-control-out", str(control), "--fifo", str(reader.path)]
    with started(extcap, *options) as process, device.accept() as sock:
        # The window is opened at its own time; lines before that are lost to it, not to the capture.
        _send_until(sock, b"E (1) wifi: bad\n", lambda: b"wifi: bad" in shown)
        sock.sendall(b"I (1) flood: x\n" * 3000)
        wait_until("the flood is captured", lambda: reader.data.count(b"flood") >= 3000)
        _send_until(sock, b"<14>on\n", lambda: b"more messages of the log" in shown)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert b"error     E (1) wifi: bad\n" in shown
    assert shown.count(b"flood") <= 200


def _send_until(sock: socket.socket, line: bytes, condition: Callable[[], bool]) -> None:
    def sent() -> bool:
        sock.sendall(line)
        return condition()

    wait_until(f"what {line!r} brings", sent)


@pytest.mark.slow
def test_devices_that_flood_do_not_hold_up_the_end(extcap: Path, tmp_path: Path, device: Device) -> None:
    reader = Reader(tmp_path / "fifo")
    options = ["--host", "127.0.0.1", "--mode", "syslog", "--syslog-port", str(device.port)]
    with started(extcap, *options, "--fifo", str(reader.path)) as process, device.accept() as sock:
        flooding = threading.Thread(target=_flood, args=(sock,), daemon=True)
        flooding.start()
        assert reader.some.wait(20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        flooding.join(10)
    assert reader.ended.wait(10)
    assert assert_complete(reader.data, tmp_path) > 100


def _flood(sock: socket.socket) -> None:
    try:
        while True:
            sock.sendall(b"<14>flood\n" * 1000)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["--mode", "syslog"], 2, "no server given"),
        (["--host", "demo", "--syslog", "perhaps"], 2, "--syslog cannot be 'perhaps'"),
        (["--host", "demo", "--syslog-port", "0"], 2, "--syslog-port cannot be '0'"),
        (["--host", "demo", "--syslog", "listen", "--syslog-listen", "x:y"], 2, "not a place to listen"),
        (["--host", "demo", "--syslog", "listen", "--syslog-listen", "tls:*:0"], 2, "needs a certificate"),
        (["--mode", "syslog", "--syslog", "listen", "--syslog-listen", "192.0.2.1:0"], 1, "no such address"),
    ],
)
def test_choices_that_cannot_be(extcap: Path, tmp_path: Path, options: list[str], exit_code: int, words: str) -> None:
    reader = Reader(tmp_path / "fifo")
    code, _, err = run(extcap, *options, "--fifo", str(reader.path))
    assert code == exit_code
    assert_sentence(err, words)
    assert reader.ended.wait(10)


def test_a_server_with_a_port_of_its_own_in_its_name(extcap: Path, tmp_path: Path, device: Device) -> None:
    target = tmp_path / "out.pcapng"
    options = ["--host", "127.0.0.1:3241", "--mode", "syslog", "--syslog-port", str(device.port), "--count", "1"]
    with started(extcap, *options, "--fifo", str(target)) as process, device.accept() as sock:
        sock.sendall(b"<14>x\n")
        assert process.wait(20) == 0
    assert logged(target) == [b"<14>x"]
