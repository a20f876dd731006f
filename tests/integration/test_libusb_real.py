"""Real libusb, that of libusb-package and the system's, on an emulated usbfs that has the demo device."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from usbip_capture.demo.device import DESCRIPTORS
from usbip_capture.usb.status import ECONNRESET, EINVAL, ENOENT, EPIPE, EREMOTEIO, ESHUTDOWN

ROOT = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def system_python() -> str:
    """The Python that has PyGObject and UMockdev."""
    program = "/usr/bin/python3"
    if not shutil.which("umockdev-wrapper") or not os.path.exists(program):
        pytest.skip("umockdev is not installed")
    check = "import gi; gi.require_version('UMockdev', '1.0'); import sys; sys.exit(sys.version_info < (3, 10))"
    if subprocess.run([program, "-c", check], check=False, capture_output=True).returncode:
        pytest.skip("the system's Python has no UMockdev (gir1.2-umockdev-1.0, python3-gi)")
    return program


def test_commands_on_a_device_of_this_machine(system_python: str) -> None:
    emulator = ["umockdev-wrapper", system_python, str(ROOT / "tests/fakes/usbfs_emulator.py"), "--"]
    for line, expected in COMMANDS.items():
        done = subprocess.run(
            [*emulator, sys.executable, "-m", "usbip_capture.cli.main", *line.split()],
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


@pytest.mark.parametrize("library", ["packaged", "system"])
def test_all_kinds_of_transfers(library: str, system_python: str) -> None:
    emulator = ["umockdev-wrapper", system_python, str(ROOT / "tests/fakes/usbfs_emulator.py"), "--"]
    done = subprocess.run(
        [*emulator, sys.executable, "-m", "tests.programs.local_libusb", library],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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
