"""`import usb1` of a program that a test starts with this folder in PYTHONPATH: a machine with simulated devices.

SIMULATED_USB says which, separated by blanks: `demo` (at 99-1.4, and a hub at 99-1), `second` (the same at 99-2),
`denied` (nobody may open them), `busy` (another program has the keyboard's interface), `held` (it has all of them),
`vanishing` (gone when it is opened), `missing` (there is no libusb1), `unloadable` (there is no libusb).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from tests.fakes.simulated_usb1 import SimulatedUsb1
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice

BUS = 99
_HUB = bytes.fromhex("12 01 0002 09 00 01 40 6b1d 0200 0001 00 00 00 01")
_HUB_CONFIGURATION = bytes.fromhex("09 02 1900 01 01 00 e0 00  09 04 00 00 01 09 00 00 00  07 05 81 03 0400 0c")

words = os.environ.get("SIMULATED_USB", "").split()
if "missing" in words:
    raise ImportError("No module named 'usb1'")
machine = SimulatedUsb1()


def _plug(*ports: int) -> None:
    info = replace(INFO, busnum=BUS, devnum=len(machine.attached) + 1, busid=f"{BUS}-{'.'.join(map(str, ports))}")
    attached = machine.plug(DemoDevice(info), ports)
    for interface, driver in enumerate(("cdc_acm", "cdc_acm", "usbhid")):
        attached.bind(interface, driver)
    if "denied" in words:
        attached.open_error = "Access"
    if "vanishing" in words:
        attached.gone = True
    if "busy" in words:
        attached.drivers.pop(2)
        attached.holders[2] = "openocd"
    if "held" in words:
        attached.drivers.clear()
        attached.holders.update(dict.fromkeys(range(4), "openocd"))


def _not_there(library: object = None) -> bool:
    raise OSError("libusb-1.0.so.0: cannot open shared object file")


if "unloadable" in words:
    machine.loadLibrary = _not_there  # type: ignore[method-assign]
if "demo" in words:
    hub = Descriptors(_HUB, [_HUB_CONFIGURATION])
    machine.plug(SimulatedDevice(hub.info(f"{BUS}-1", BUS, 9, INFO.speed), hub), (1,))
    _plug(1, 4)
if "second" in words:
    _plug(2)
machine.__spec__ = __spec__  # type: ignore[attr-defined]
sys.modules[__name__] = machine  # type: ignore[assignment]
