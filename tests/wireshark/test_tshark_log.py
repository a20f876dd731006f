"""The device's log as the real tshark sees it: its fields, beside USB, through the extcap and through named pipes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.syslog_senders import Device, esp
from tests.programs.extcap_launcher import ROOT, wireshark_environment
from tests.waiting import wait_until
from usbip_capture import PcapWriter, SyslogReceiver
from usbip_capture.demo.device import DemoServer

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]
PREFIX = "extcap.usbip_remote."
FIELDS = ("frame.interface_name", "syslog.level", "syslog.facility", "syslog.hostname", "syslog.appname", "ip.src")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return wireshark_environment(tmp_path)


@pytest.fixture
def device() -> Iterator[Device]:
    """A device that offers its log."""
    found = Device()
    yield found
    found.close()


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Those of the demo device and of its log, on this machine."""
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    _, log_port = server.listen_log("127.0.0.1", 0)
    yield port, log_port
    server.close()


def fields(target: Path, show: str, *names: str) -> list[list[str]]:
    wanted = [part for name in names for part in ("-e", name)]
    command = ["tshark", "-r", str(target), "-Y", show, "-T", "fields", *wanted]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [line.split("\t") for line in out.splitlines()]


def preferences(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in ("-o", f"{PREFIX}{name}:{value}")]


@contextmanager
def tshark(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(["tshark", *arguments], env=environment, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def assert_both_in_order(target: Path) -> None:
    """USB and log, decoded, no time earlier than that of a packet before by 50 ms."""
    # One look at all of it: tshark takes long to start.
    rows = fields(target, "frame", "frame.time_epoch", "_ws.malformed", "usb.idVendor", *FIELDS)
    assert {row[3] for row in rows} == {"usbip0", "syslog0"}
    latest = 0.0
    for time, *_ in rows:
        assert float(time) > latest - 0.05
        latest = max(latest, float(time))
    assert not any(row[1] for row in rows)
    assert any(row[2] for row in rows)
    output = [row[3:] for row in rows if row[3] == "syslog0"]
    assert len(output) >= 3
    assert all(all(row) for row in output), output
    assert ["syslog0", "6", "1", "demo", "usb", "127.0.0.1"] in output


def test_through_the_extcap(environment: dict[str, str], ports: tuple[int, int], tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    options = preferences(host="127.0.0.1", port=ports[0], syslog="connect", syslogport=ports[1])
    arguments = ["-i", "usbip-remote", *options, "-a", "duration:2", "-w", str(target)]
    subprocess.run(["tshark", *arguments], env=environment, check=True, capture_output=True, timeout=60)
    assert_both_in_order(target)


def test_through_a_named_pipe(environment: dict[str, str], ports: tuple[int, int], tmp_path: Path) -> None:
    """The forerunner's live view: a program of one's own writes into a pipe that is watched."""
    pipe, target = tmp_path / "pipe", tmp_path / "out.pcapng"
    os.mkfifo(pipe)
    code = f"""
import usb.core
from usbip_capture import PcapWriter, SyslogReceiver, get_backend
with PcapWriter({str(pipe)!r}) as pcap, SyslogReceiver("127.0.0.1", {ports[1]}, pcap):
    backend = get_backend("127.0.0.1", {ports[0]}, pcap=pcap)
    dev = usb.core.find(backend=backend, idVendor=0x1209)
    dev.set_configuration()
    while True:
        dev.read(0x83, 8, 1000)
"""
    with (
        tshark(environment, "-i", str(pipe), "-a", "duration:3", "-w", str(target)) as watching,
        subprocess.Popen([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}) as writing,
    ):
        assert watching.wait(60) == 0
        writing.kill()
    assert_both_in_order(target)


def test_what_devices_send(environment: dict[str, str], device: Device, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    options = preferences(host="127.0.0.1", mode="syslog", syslogport=device.port, sysloglevel="info")
    sent = [
        esp(1, "E (1) wifi: one", 3),
        b'<165>1 2003-10-11T22:14:15.003Z pi evntslog - ID47 [e@32473 iut="3"] \xef\xbb\xbftwo\n',
        b"<34>Oct 11 22:14:15 mymachine su: three\n",
        b"\x1b[0;33mW (4) heap: four\x1b[0m\r\n",
        b"<15>left out\n",
    ]
    arguments = ["-i", "usbip-remote", *options, "-c", "4", "-w", str(target)]
    with tshark(environment, *arguments) as process, device.accept() as sock:
        sock.sendall(b"".join(sent))
        assert process.wait(60) == 0
    assert fields(target, "frame", "syslog.level", "syslog.facility", "syslog.hostname", "syslog.appname") == [
        ["3", "1", "esp32", "esp"],
        ["5", "20", "pi", "evntslog"],
        ["2", "4", "mymachine", ""],  # tshark takes no program out of RFC 3164
        ["4", "1", "127.0.0.1", "heap"],
    ]
    ends = fields(target, "frame", "frame.interface_name", "ip.src", "ip.dst", "tcp.srcport", "frame.protocols")
    assert [row[:3] for row in ends] == [["syslog0", "127.0.0.1", "127.0.0.1"]] * 4
    assert {row[4] for row in ends} == {"exported_pdu:syslog"}


def test_senders_are_distinguished_by_address(tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    with PcapWriter(target) as pcap, SyslogReceiver(listen="udp:*:0", pcap=pcap) as receiver:
        port = receiver.bound[0].port
        for address in ("127.0.0.2", "127.0.0.3"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((address, 0))
                sock.sendto(b"<13>x", ("127.0.0.1", port))
        wait_until("both", lambda: receiver.counts.messages == 2)
    assert fields(target, "syslog", "ip.src") == [["127.0.0.2"], ["127.0.0.3"]]


def test_the_log_is_lost_and_usb_goes_on(
    environment: dict[str, str], ports: tuple[int, int], device: Device, tmp_path: Path
) -> None:
    target = tmp_path / "out.pcapng"
    options = preferences(host="127.0.0.1", port=ports[0], syslog="connect", syslogport=device.port)
    with tshark(environment, "-i", "usbip-remote", *options, "-w", str(target)) as process:
        with device.accept() as sock:
            sock.sendall(b"<14>one\n")
        with device.accept() as sock:
            sock.sendall(b"<14>two\n")
            expected = b"<14>two", b"the log of 127.0.0.1 is back"
            wait_until("both lines", lambda: all(text in target.read_bytes() for text in expected), 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert [row[0] for row in fields(target, "syslog", "syslog.msg")] == ["one", "two"]
    remarks = [row[0] for row in fields(target, "frame.comment", "frame.comment")]
    assert any("the log of 127.0.0.1 is lost" in remark for remark in remarks), remarks
    assert any("the log of 127.0.0.1 is back" in remark for remark in remarks), remarks
    assert len(fields(target, "usb", "frame.number")) > 40
