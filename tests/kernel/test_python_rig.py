"""The guest with Python itself: programs run, end and are killed; libusb finds and uses what is plugged in."""

from __future__ import annotations

import pytest

from tests.kernel.rig import PythonGuest, RigError

pytestmark = pytest.mark.kernel

ECHO = """
import ctypes, libusb_package, usb1

usb1.loadLibrary(ctypes.CDLL(str(libusb_package.get_library_path()), use_errno=True))
with usb1.USBContext() as context:
    handle = context.openByVendorIDAndProductID(0x0403, 0x6001)
    handle.setAutoDetachKernelDriver(True)
    with handle.claimInterface(0):
        handle.bulkWrite(0x02, b"hello")
        data = b""
        while len(data) < 5:
            data += handle.bulkRead(0x81, 64, timeout=5000)[2:]  # after two status bytes
    print(data.decode())
    handle.close()
"""
HOTPLUG = """
import usb1

names = {usb1.HOTPLUG_EVENT_DEVICE_ARRIVED: "arrived", usb1.HOTPLUG_EVENT_DEVICE_LEFT: "left"}
with usb1.USBContext() as context:
    context.hotplugRegisterCallback(lambda _, device, event: print(names[event], device.getPortNumberList()), flags=0)
    print("listening")
    while True:
        context.handleEventsTimeout(1)
"""


def test_programs_run_to_their_end(lender: PythonGuest) -> None:
    assert lender.python("import sys; print(sys.argv[1:], sys.stdin.read())", "a", "b", stdin=b"in").text == (
        "['a', 'b'] in\n"
    )
    assert lender.python("import sys; sys.exit(4)", check=False).returncode == 4
    with pytest.raises(RigError, match="ZeroDivisionError"):
        lender.python("1 / 0")


def test_programs_in_the_background(lender: PythonGuest) -> None:
    sleeping = lender.start("-c", "import time; print('asleep'); time.sleep(600)", log="/tmp/sleeping")
    assert sleeping.wait_printed("asleep") == "asleep\n"
    assert sleeping.alive
    sleeping.signal("INT")
    sleeping.wait_ended()
    assert "KeyboardInterrupt" in sleeping.printed()
    with pytest.raises(RigError, match=r"it ended without 'more': asleep"):
        sleeping.wait_printed("more")


def test_libusb_uses_what_is_plugged_in(lender: PythonGuest) -> None:
    busid = lender.plug("serial")
    try:
        assert lender.python(ECHO).text == "hello\n"
    finally:
        lender.unplug(busid)


def test_debians_libusb_notices_what_comes_and_leaves(lender: PythonGuest) -> None:
    watching = lender.start("-c", HOTPLUG, log="/tmp/hotplug")
    watching.wait_printed("listening")
    busid = lender.plug("kbd", "uhci")
    watching.wait_printed("arrived [1]")
    lender.unplug(busid)
    watching.wait_printed("left [1]")
    watching.signal("KILL")
