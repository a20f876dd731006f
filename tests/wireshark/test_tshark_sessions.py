"""A program that uses the library, joined by the real tshark: what it has done before is in the capture, too."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import usb.core

from tests.programs.extcap_launcher import wireshark_environment
from usbip_capture import get_backend
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoServer
from usbip_capture.live import registry
from usbip_capture.offering.program import program_offer

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]
ECHOES = 20


def test_tshark_lists_a_program_and_has_what_it_did(tmp_path: Path) -> None:
    environment, target = wireshark_environment(tmp_path), tmp_path / "joined.pcapng"
    with closing(DemoServer()) as demo:
        backend = get_backend(*demo.listen("127.0.0.1", 0), offer=True, hindsight="1h,1MiB")
        try:
            device = usb.core.find(backend=backend)
            assert isinstance(device, usb.core.Device)
            assert device.product == "Demo device"
            device.set_configuration()
            for number in range(ECHOES):
                device.write(BULK_OUT, bytes([number]) * 8)
                assert bytes(device.read(BULK_IN, 64)) == bytes([number]) * 8
            (entry,) = registry.running()
            listed = subprocess.run(["tshark", "-D"], env=environment, capture_output=True, text=True, check=True)
            assert f"{entry.name} ({entry.display})" in listed.stdout
            assert f" {os.getpid()}, 1-1" in entry.display
            command = ["tshark", "-i", entry.name, "-f", "bulk", "-c", str(4 * ECHOES), "-w", str(target)]
            subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
        finally:
            backend.close()
            program_offer().close()
    wanted = ["-T", "fields", "-e", "usb.endpoint_address", "-e", "usb.capdata", "-e", "frame.comment"]
    read = ["tshark", "-r", str(target), "-Y", "usb.capdata", *wanted]
    rows = subprocess.run(read, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [row.split("\t")[:2] for row in rows] == [
        [endpoint, f"{number:02x}" * 8]
        for number in range(ECHOES)
        for endpoint in (f"0x{BULK_OUT:02x}", f"0x{BULK_IN:02x}")
    ]
    assert "kept by the program" in rows[0]
    malformed = ["tshark", "-r", str(target), "-Y", "_ws.malformed or _ws.expert.severity == error"]
    assert not subprocess.run(malformed, env=environment, capture_output=True, check=True).stdout
