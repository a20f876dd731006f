"""Command lines of `usbip-pyusb-test` and `lsusbip`, programs that people know, with our program's name instead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import run_line
from usbip_capture.demo.device import INFO, DemoDevice, DemoServer
from usbip_capture.errors import CaptureError

# Addresses of this machine on which the usual ports are free.
HOSTS = [f"127.0.7.{number}" for number in range(1, 5)]
BRIDGE = replace(INFO, idVendor=0x303A, idProduct=0x4004)
PROBE = "probe --vid 0x303a --pid 0x4004"


class Bridge(DemoServer):
    """A server of the device that the lines name."""

    def __init__(self) -> None:
        super().__init__()
        self.add(BRIDGE, lambda: DemoDevice(BRIDGE, self.log))


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = Bridge()
    for address in HOSTS:
        try:
            server.listen(address, 3240)
            server.listen_log(address, 1514)
        except (CaptureError, OSError):
            continue
        yield address
        server.close()
        return
    pytest.skip("no address of this machine has ports 3240 and 1514 free")


def test_discover(tmp_path: Path) -> None:
    done = run_line("usbip-capture discover", tmp_path)
    assert done.returncode in (0, 1)  # nobody may be there
    assert "Traceback" not in done.stderr


def test_list(host: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture --host {host} list", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "303a:4004" in done.stdout


def test_probe(host: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture --host {host} {PROBE} --get-device-desc", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "00000000  12 01 10 02" in done.stdout


def test_control(host: str, tmp_path: Path) -> None:
    line = (
        f"usbip-capture --host {host} control \\\n--vid 0x303a --pid 0x4004 \\\n--direction in \\\n"
        "--bm-request-type 0x80 --b-request 0x06 --w-value 0x0100 --length 18"
    )
    done = run_line(line, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("00000000  12 01 10 02")


def test_pcap_and_syslog(host: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture --host {host} --pcap capture.pcapng --syslog \\\n{PROBE}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[syslog] " in done.stderr
    assert "released by the host" in done.stderr  # by then the demo has accepted the log connection
    records = list(read_capture(tmp_path / "capture.pcapng"))
    assert {record.interface.name for record in records} == {"usbip0", "syslog0"}


def test_a_named_pipe(host: str, tmp_path: Path) -> None:
    assert run_line("mkfifo usb.pcap", tmp_path).returncode == 0
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "usb.pcap").read_bytes()))
    reader.start()
    done = run_line(f"usbip-capture --host {host} --pcap ./usb.pcap --syslog \\\n{PROBE}", tmp_path)
    reader.join(20)
    assert done.returncode == 0, done.stderr
    (tmp_path / "copy.pcapng").write_bytes(got[0])
    assert len(list(read_capture(tmp_path / "copy.pcapng"))) > 20


def test_syslog_of_a_list(host: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture --host {host} --syslog list", tmp_path)
    assert done.returncode == 0
    assert f"reading the log of {host}" in done.stderr


@pytest.mark.parametrize("options", ["", "-t", "-v", "--tree --mdns-timeout 3.0 --timeout 2.0"])
def test_lsusbip(host: str, options: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture list {host} {host}:3240 {options}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{host}:\n") == 2
