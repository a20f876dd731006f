"""The device that PyUSB's own test suite wants, and a server that exports it.

Ref: PyUSB, tests/devinfo.py and tests/test_*.py
"""

from __future__ import annotations

from usbip_capture.server import Server
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import Setup

BUSID = "2-1.3"
_DEVICE = bytes.fromhex("12 01 0002 00 00 00 08 d804 2efa 0100 01 02 03 01")
_INTERFACES = bytes.fromhex(
    "09 04 00 00 02 00 00 00 00  07 05 01 02 1000 00  07 05 81 02 1000 00"
    "09 04 00 01 02 00 00 00 00  07 05 02 03 1000 01  07 05 82 03 1000 01"
    "09 04 00 02 02 00 00 00 00  07 05 03 01 4000 01  07 05 83 01 4000 01"
)
_CONFIGURATION = bytes.fromhex("09 02 4e00 01 01 00 c0 32") + _INTERFACES
DESCRIPTORS = Descriptors(_DEVICE, [_CONFIGURATION], ["Travis Robinson", "Benchmark Device", "BM0001"])
INFO: DeviceInfo = DESCRIPTORS.info(BUSID, 2, 7, Speed.FULL)
_SET_TEST, _GET_TEST, _SET_VENDOR_BUFFER, _GET_VENDOR_BUFFER = 0x0E, 0x0F, 0x10, 0x11


class PyusbTestDevice(SimulatedDevice):
    """Each OUT endpoint is looped back to its IN endpoint; alternate settings: bulk, interrupt, isochronous."""

    def __init__(self) -> None:
        super().__init__(INFO, DESCRIPTORS)
        self._buffer = b""

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.bRequest == _SET_VENDOR_BUFFER:
            self._buffer = data
            return b""
        if setup.bRequest == _GET_VENDOR_BUFFER:
            return self._buffer
        return b"\0" if setup.bRequest in (_SET_TEST, _GET_TEST) else None

    def received(self, address: int, data: bytes) -> None:
        self.feed(address | 0x80, data)


def pyusb_test_server() -> Server:
    """A server with the device, not listening yet."""
    server = Server()
    server.add(INFO, PyusbTestDevice)
    return server
