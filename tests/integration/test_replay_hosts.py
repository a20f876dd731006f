"""`replay:FILE` wherever a host is taken: in Wireshark's dialog, for PyUSB programs, serial ports, the relay."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import usb.core

from tests.fakes.loopback_device import loopback_server
from tests.fakes.serial_server import serial_server
from tests.fakes.simulated_vhci import SimulatedVhci
from tests.programs.commands import ROOT, command_environment, run_line
from tests.programs.extcap_launcher import wireshark_environment
from tests.programs.extcap_runs import assert_complete, assert_sentence, run
from tests.waiting import wait_until
from usbip_capture.cli import completion
from usbip_capture.collector import SyslogReceiver
from usbip_capture.errors import LocalProtocolError
from usbip_capture.extcap import dialog
from usbip_capture.pyusb_backend import get_backend
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.known import read_cache
from usbip_capture.vhci.attaching import Attacher
from usbip_capture.vhci.records import Records

PROGRAM = """\
import usb.core
dev = usb.core.find(idVendor=0x1209)
print(dev.write(0x04, b"hello"), bytes(dev.read(0x84, 64)))
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five bytes go through the loopback of a device; its strings are read."""
    path = tmp_path_factory.mktemp("recorded") / "a session.pcapng"
    with loopback_server() as server:
        backend = get_backend("127.0.0.1", server.port, pcap=path)
        device = usb.core.find(backend=backend)
        assert device is not None
        assert (device.product, device.serial_number) == ("Demo device", "DEMO0001")
        device.set_configuration()
        assert (device.write(0x04, b"hello"), bytes(device.read(0x84, 64))) == (5, b"hello")
        backend.close()
    return path


@pytest.fixture(scope="module")
def line_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serial port with its transmit line on its receive line."""
    pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
    path = tmp_path_factory.mktemp("recorded") / "line.pcapng"
    with serial_server() as server:
        port_program(f"{server.url()}?pcap={path}")
    return path


def port_program(url: str) -> str:
    """What is read of what was written."""
    program = (
        "import serial, sys\n"
        "with serial.serial_for_url(sys.argv[1], baudrate=115200, timeout=20) as port:\n"
        "    port.write(b'hello')\n"
        "    print(port.read(5))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_dialog_lists_its_devices_by_their_names(recording: Path) -> None:
    options = [
        "--extcap-interface",
        "usbip-remote",
        "--extcap-reload-option",
        "device",
        "--host",
        f"replay:{recording}",
    ]
    shown = [line for line in dialog.answer(options) if line.startswith("value ")]
    assert "{display=1-1   1209:0001   Demo device   DEMO0001}" in shown[2]
    assert read_cache().servers == {}


def test_wireshark_takes_it_as_a_host(recording: Path) -> None:
    (line,) = [line for line in dialog.answer(["--extcap-interface", "usbip-remote"]) if "{call=--host}" in line]
    (pattern,) = re.findall(r"\{validation=([^{}]*)\}", line)
    for text in (f"replay:{recording}", " replay:session.pcapng", "REPLAY:/a/b.pcapng", "pi", "ssh://pi", "demo"):
        assert re.search(pattern, text), text
    for text in ("", "ftp://pi/", "/etc/passwd"):
        assert not re.search(pattern, text), text


def test_as_an_extcap(recording: Path, extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    done = run(extcap, "--host", f"replay:{recording}", "--listen-in", "false", "--count", "9", "--fifo", str(target))
    assert done == (0, b"", "")
    assert assert_complete(target.read_bytes(), tmp_path) == 9
    assert read_cache().servers == {}


@pytest.mark.parametrize("name", ["", "-", "missing.pcapng", "empty.pcapng", "other.pcapng", "."])
def test_an_extcap_without_a_recording_ends_with_a_sentence(name: str, extcap: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pcapng").write_bytes(b"")
    (tmp_path / "other.pcapng").write_text("something else\n")
    path = name if name in ("", "-") else tmp_path / name
    code, out, error = run(extcap, "--host", f"replay:{path}", "--fifo", str(tmp_path / "out"))
    assert (code, out) == (2 if name in ("", "-") else 1, b"")
    assert_sentence(error, str(path).removesuffix("/."))


@pytest.mark.wireshark
def test_in_tshark(recording: Path, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-i", "usbip-remote", "-o", f"extcap.usbip_remote.host:replay:{recording}", "-c", "9"]
    done = subprocess.run(
        command, env=wireshark_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
    )
    assert "GET DESCRIPTOR Response DEVICE" in done.stdout, done.stderr
    assert "Error" not in done.stderr


def test_a_program_of_pyusb(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_line(f"usbip-capture use 'replay:{recording}' -- program.py", tmp_path)
    assert (done.returncode, done.stdout) == (0, "5 b'hello'\n"), done.stderr


def test_a_serial_port(line_recording: Path, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture ports replay:{line_recording}", tmp_path)
    url = done.stdout.split()[0]
    assert url.startswith("usbip://replay:"), done.stderr
    assert port_program(url) == "b'hello'\n"


def test_through_the_relay(recording: Path, tmp_path: Path) -> None:
    command = ["usbip-capture", "relay", f"replay:{recording}", "--listen", "127.0.0.1:0", "-o", "relayed.pcapng"]
    environment = command_environment(tmp_path)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            (port,) = re.findall(r"relaying 127\.0\.0\.1:(\d+) to replay:", line)
            (tmp_path / "program.py").write_text(PROGRAM)
            done = run_line(f"usbip-capture use 127.0.0.1:{port} -- program.py", tmp_path)
            assert (done.returncode, done.stdout) == (0, "5 b'hello'\n"), done.stderr
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert run_line("usbip-capture stats relayed.pcapng", tmp_path).stdout.count("1-1 ") >= 1
    done = run_line(f"usbip-capture compare '{recording}' relayed.pcapng", tmp_path)
    assert "1-1 (1209:0001): " in done.stdout, done.stderr
    assert (tmp_path / "relayed.pcapng").stat().st_size > 1000


def test_a_kernel_would_lose_it(recording: Path, tmp_path: Path) -> None:
    vhci = SimulatedVhci(tmp_path / "sys")
    attacher = Attacher(vhci, Records(str(tmp_path / "records")))
    try:
        with pytest.raises(LocalProtocolError, match="run usbip-capture replay FILE, and attach from 127"):
            attacher.attach(ServerAddress.parse(f"replay:{recording}"), Selector())
    finally:
        vhci.close()


def test_it_has_no_log_to_connect_to(recording: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SyslogReceiver(f"replay:{recording}"):
        wait_until("it is reported", lambda: "a recording has no log" in caplog.text)


def test_busids_are_completed(recording: Path) -> None:
    assert completion._busids(argparse.Namespace(server=f"replay:{recording}")) == ["1-1"]


@pytest.mark.parametrize("target", ["a session.pcapng", "./a session.pcapng", "link.pcapng"])
def test_a_report_does_not_destroy_the_recording(recording: Path, target: str) -> None:
    before = recording.read_bytes()
    link = recording.parent / "link.pcapng"
    if not link.exists():
        link.symlink_to(recording)
    done = run_line(
        f"usbip-capture replay 'a session.pcapng' --listen 127.0.0.1:0 --report '{target}'", recording.parent
    )
    assert done.returncode == 2
    assert "is the capture: choose another name for the report" in done.stderr
    assert recording.read_bytes() == before
