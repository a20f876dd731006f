"""`list -v` against the real `lsusb -v`, of devices made of descriptors only."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.class_descriptors import CONFIGURATIONS
from usbip_capture.describe.reading import Description
from usbip_capture.describe.verbose import verbose
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, Speed

DEVICE = bytes.fromhex("12 01 0002 00 00 00 40 0912 0100 0001 00 00 00 01")
#: Names that depend on whose list of USB ids is newer.
_NAMED = re.compile(r"( +(?:b\w*(?:Class|Protocol)|id(?:Vendor|Product)) +\w+) .*")
_UNOPENED = "Couldn't open device, some information will be missing"


def lines(text: str) -> list[str]:
    """What there is to compare: the descriptors."""
    shown = [_NAMED.sub(r"\1", line.rstrip()) for line in text.splitlines() if line.strip()]
    return [line for line in shown if not line.startswith("Bus ") and line != _UNOPENED and "iMacAddress" not in line]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_as_lsusb_prints_it(name: str, tmp_path: Path) -> None:
    for program in ("lsusb", "umockdev-run"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    raw = (DEVICE + CONFIGURATIONS[name]).hex().upper()
    attributes = {"busnum": 1, "devnum": 2, "bConfigurationValue": 1, "speed": 480}
    mock = tmp_path / "device.umockdev"
    mock.write_text(
        f"P: /devices/pci0000:00/0000:00:14.0/usb1/1-1\nN: bus/usb/001/002={raw}\n"
        "E: DEVTYPE=usb_device\nE: DEVNAME=/dev/bus/usb/001/002\nE: BUSNUM=001\nE: DEVNUM=002\nE: SUBSYSTEM=usb\n"
        f"H: descriptors={raw}\n" + "".join(f"A: {key}={value}\\n\n" for key, value in attributes.items())
    )
    command = ["umockdev-run", "-d", str(mock), "--", "lsusb", "-v"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    info = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 1)
    found = Description(info, DeviceDescriptor.parse(DEVICE), [parse_configuration(CONFIGURATIONS[name])], 1)
    assert lines("\n".join(verbose(found))) == lines(done.stdout)
