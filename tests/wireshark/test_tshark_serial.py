"""Captures of serial ports in tshark, whose dissectors of chips remember one control request at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.serial_server import open_port, serial_server
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Loopback

pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


def test_no_answer_of_an_ftdi_chip_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "ftdi.pcapng"
    with serial_server(ftdi([Loopback()])) as server:
        port = open_port(server, f"pcap={path}")
        port.write(b"hello")
        assert port.read(5) == b"hello"
        port.baudrate = 57600
        port.reset_input_buffer()
        port.close()
    done = subprocess.run(
        ["tshark", "-r", path, "-Y", "_ws.malformed or usb.urb_status == -108", "-T", "fields", "-e", "frame.number"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.stdout == ""
