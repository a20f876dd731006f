"""The real `lsusb -v` on devices that are descriptors, and answers to control requests, only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import pack, unpack

import pytest

from usbip_capture.usb.setup import Setup
from usbip_capture.usb.status import EINPROGRESS, EPIPE

_SYSFS = "/devices/pci0000:00/0000:00:14.0/usb1/1-1"
#: What it asks at the end: a qualifier of devices of USB 2.0, a debug descriptor, the status.
QUALIFIER, DEBUG, STATUS = Setup(0x80, 6, 0x0600, 0, 10), Setup(0x80, 6, 0x0A00, 0, 4), Setup(0x80, 0, 0, 0, 2)


def lsusb(descriptors: bytes, folder: Path, speed: int, answers: Mapping[Setup, bytes] | None = None) -> str:
    """What it prints. answers: what the device answers, all else stalls; None: it cannot be opened.

    Skips where the programs are missing.
    """
    for program in ("lsusb", "umockdev-run"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    raw = descriptors.hex().upper()
    attributes = {"busnum": 1, "devnum": 2, "bConfigurationValue": 1, "speed": speed}
    mock = folder / "device.umockdev"
    mock.write_text(
        f"P: {_SYSFS}\nN: bus/usb/001/002={raw}\n"
        "E: DEVTYPE=usb_device\nE: DEVNAME=/dev/bus/usb/001/002\nE: BUSNUM=001\nE: DEVNUM=002\nE: SUBSYSTEM=usb\n"
        f"H: descriptors={raw}\n" + "".join(f"A: {key}={value}\\n\n" for key, value in attributes.items())
    )
    command = ["umockdev-run", "-d", str(mock)]
    if answers is not None:
        traffic = folder / "traffic.pcap"
        asked = [QUALIFIER] * (descriptors[2:4] == b"\0\2") + [DEBUG, STATUS]
        traffic.write_bytes(_recorded([setup for setup in answers if setup not in asked] + asked, answers))
        command += ["-p", f"/sys{_SYSFS}={traffic}"]
    done = subprocess.run([*command, "--", "lsusb", "-v"], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def _recorded(asked: Sequence[Setup], answers: Mapping[Setup, bytes]) -> bytes:
    """Control transfers as usbmon sees them, in their order, which umockdev replays.

    Ref: Linux Documentation/usb/usbmon.rst, struct usbmon_packet
    """
    out = pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 220)
    for number, setup in enumerate(asked, 1):
        data, status = answers.get(setup, b""), 0 if setup in answers else -EPIPE
        out += _event(number, b"S", setup.pack(), -EINPROGRESS, setup.wLength, b"")
        out += _event(number, b"C", b"", status, len(data), data)
    return out


def _event(number: int, kind: bytes, setup: bytes, status: int, length: int, data: bytes) -> bytes:
    flags = (0, ord("<")) if setup else (ord("-"), 0)
    (at,) = unpack("B", kind)
    head = pack("<QBBBBHBBqiiII", number, at, 2, 0x80, 2, 1, *flags, number, 0, status, length, len(data))
    head += setup.ljust(8, b"\0") + pack("<IIII", 0, 0, 0x200, 0)
    size = len(head) + len(data)
    return pack("<IIII", number, 0, size, size) + head + data
