"""Linux's usbhid on HID devices out of lsusb's text, whether lsusb could read their report descriptors or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_lsusb_verbose import GAMEPAD, KEYBOARD, hid
from tests.kernel.rig import Guest
from tests.waiting import wait_until
from usbip_capture.demo.lsusb import add_directory
from usbip_capture.describe.reading import Description
from usbip_capture.describe.verbose import verbose
from usbip_capture.server import Server
from usbip_capture.simulated.lsusb import parse_lsusb
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import DeviceInfo, Speed

pytestmark = pytest.mark.kernel

DEVICE = DeviceDescriptor.parse(bytes.fromhex("12 01 0002 00 00 00 08 0912 0100 0001 00 00 00 01"))
SUBCLASS = bytes.fromhex("03 01 01")


def text(triple: bytes, length: int, report: bytes) -> str:
    raw = hid(length).replace(SUBCLASS, triple, 1)
    info = DeviceInfo("1-1", 1, 2, Speed.FULL, 0x1209, 1)
    found = Description(info, DEVICE, [parse_configuration(raw)], 1, reports={0: report} if report else {})
    return "\n".join(verbose(found))


@pytest.mark.parametrize(
    ("triple", "length", "report"),
    [
        ("03 01 01", 63, KEYBOARD),
        ("03 00 00", len(GAMEPAD), b""),
        ("03 01 01", 65, b""),
        ("03 01 02", 52, b""),
        ("03 00 00", 33, b""),
        ("03 01 01", 12, b""),
    ],
    ids=["decoded", "gamepad", "keyboard", "mouse", "vendor", "short"],
)
def test_usbhid_accepts_it(guest: Guest, triple: str, length: int, report: bytes, tmp_path: Path) -> None:
    path = tmp_path / "1-1.lsusb"
    path.write_text(text(bytes.fromhex(triple), length, report))
    server = Server()
    (info,) = add_directory(server, tmp_path)
    guest.run("modprobe usbhid; modprobe hid-generic", check=False)
    busid = guest.attach(server.listen("127.0.0.1", 0)[1], info.busid)
    try:
        wait_until(
            "usbhid has it", lambda: guest.run(f"ls -d /sys/bus/usb/drivers/usbhid/{busid}:1.0", check=False).text
        )
        shown = guest.run(
            f"cat /sys/bus/usb/devices/{busid}:1.0/*/report_descriptor | hexdump -v -e '1/1 \"%02x\"'"
        ).text
        assert bytes.fromhex(shown.strip()) == parse_lsusb(path.read_text())[0].reports[0]
    finally:
        guest.detach(busid)
        server.close()
