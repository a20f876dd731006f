"""Real libusb, that of libusb-package and the system's, on an emulated usbfs that has the demo device."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.programs.emulated_usbfs import ENVIRONMENT, ROOT, on_emulated_usbfs
from usbip_capture.demo.device import DESCRIPTORS
from usbip_capture.usb.status import ECONNRESET, EINVAL, ENOENT, EPIPE, EREMOTEIO, ESHUTDOWN

#: What becomes of each, whichever libusb it is.
EXPECTED = {
    "descriptor": [0, 18, DESCRIPTORS.device.hex()],
    "stall": [-EPIPE, 0, ""],
    "control out": [0, 3, ""],
    "control in": [0, 3, b"abc".hex()],
    "bulk out": [0, 5, ""],
    "bulk in": [-EREMOTEIO, 5, b"hello".hex()],
    "set interface": [0, 0, ""],
    "cancelled, flushed": [-ECONNRESET, -ESHUTDOWN, -ESHUTDOWN],
    "on another interface": None,
    "iso out": [0, 5, ""],
    "iso in": [0, 5, b"abcde".hex()],
    "300 packets": [0, 0, ""],
    "no packets": [-EINVAL, 0, ""],
    "not there": [-ENOENT, 0, ""],
    "configuration": [0, 0, ""],
    "clear halt": [0, 0, ""],
    "again": [0, 3, ""],
    "listed": ["1-1", "Demo device", 3, "/sys/bus/usb/devices/1-1"],
    "closed": -ECONNRESET,
    "unplugged": [-ESHUTDOWN] * 3,
    "lost": "device 1-1 (1209:0001) was unplugged",
    "later": [-ESHUTDOWN, 0, ""],
    "left": [],
}


#: Command -> what it prints.
COMMANDS = {
    "local": "1-1  1209:0001   480M  Demo device  [Communications",
    "probe local 1-1": "serial number  DEMO0001",
    "selftest local": "14 checks, 0 wrong",
}


def test_commands_on_a_device_of_this_machine() -> None:
    for line, expected in COMMANDS.items():
        done = subprocess.run(
            on_emulated_usbfs("demo", sys.executable, "-m", "usbip_capture.cli.main", *line.split()),
            check=False,
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


@pytest.mark.parametrize("library", ["packaged", "system"])
def test_all_kinds_of_transfers(library: str) -> None:
    done = subprocess.run(
        on_emulated_usbfs("demo", sys.executable, "-m", "tests.programs.local_libusb", library),
        check=False,
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if library == "system" and "libusb is not installed" in done.stderr:
        pytest.skip("the system has no libusb")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    version = tuple(map(int, found.pop("version").split(".")))
    assert version >= ((1, 0, 30) if library == "packaged" else (1, 0, 23))
    assert found == EXPECTED
