"""A simulated device with faults to order: what servers and devices do that the demo device does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from usbip_capture.demo.device import BULK_IN, BULK_OUT, BUSID, DESCRIPTORS, INFO, ISO_IN, ISO_OUT
from usbip_capture.device import Transfer
from usbip_capture.server import Server
from usbip_capture.server.events import Events
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.status import NEWLIB_EMSGSIZE
from usbip_capture.usb.urb import Completion, TransferType

PORT_RESET = (0x23, 3, 4)


class LoopbackDevice(SimulatedDevice):
    """The demo device's descriptors, and its loopback endpoints.

    limit: longer bulk transfers end with EMSGSIZE, in newlib's number, as on ESP32 bridges.
    resets: whether the server resets it when asked to; how often it was.
    largest: the longest bulk transfer that was run.
    """

    def __init__(self, info: DeviceInfo = INFO, descriptors: Descriptors = DESCRIPTORS) -> None:
        super().__init__(info, descriptors)
        self.limit = 1 << 30
        self.resets: int | None = None
        self.largest = 0
        self.requests: list[Setup] = []

    def submit(self, transfer: Transfer) -> None:
        urb = transfer.urb
        if urb.transfer_type == TransferType.CONTROL:
            self.requests.append(Setup.unpack(urb.setup))
        elif urb.transfer_type == TransferType.BULK and urb.length > self.limit:
            transfer.finish(Completion(-NEWLIB_EMSGSIZE))
            return
        elif urb.transfer_type == TransferType.BULK:
            self.largest = max(self.largest, urb.length)
        super().submit(transfer)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup[:3] == PORT_RESET and self.resets is not None:
            self.resets += 1
            return b""
        return None

    def received(self, address: int, data: bytes) -> None:
        self.loop_back(address, {BULK_OUT: BULK_IN, ISO_OUT: ISO_IN}[address], data)


class LoopbackServer:
    """Exports one such device; `devices` are all that were opened, the newest last."""

    def __init__(self, prepare: Callable[[LoopbackDevice], None] = lambda device: None) -> None:
        self.devices: list[LoopbackDevice] = []
        self.info = INFO
        self.descriptors = DESCRIPTORS
        self.prepare = prepare
        self.server = Server(events=Events(ring=100))
        self.export()
        self.port: int = self.server.listen("127.0.0.1", 0)[1]

    def export(self) -> None:
        """Have the device, as `info` and `descriptors` describe it now, in the list."""
        self.server.add(self.info, self._open)

    def become(self, idProduct: int, busid: str = BUSID) -> None:
        """The device is flashed and comes back as another product."""
        self.server.remove(self.info.busid)
        raw = self.descriptors.device
        self.descriptors = replace(self.descriptors, device=raw[:10] + idProduct.to_bytes(2, "little") + raw[12:])
        self.info = replace(self.info, idProduct=idProduct, busid=busid)
        self.export()

    def _open(self) -> LoopbackDevice:
        device = LoopbackDevice(self.info, self.descriptors)
        self.prepare(device)
        self.devices.append(device)
        return device


@contextmanager
def loopback_server(prepare: Callable[[LoopbackDevice], None] = lambda device: None) -> Iterator[LoopbackServer]:
    """A server that is closed at the end."""
    server = LoopbackServer(prepare)
    try:
        yield server
    finally:
        server.server.close()
