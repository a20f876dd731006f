"""A server with a device by libusb, which is simulated: `stuck`, where no bulk transfer ends, or `ready`, all at once.

Prints its port, and serves until it is ended.
"""

from __future__ import annotations

import sys
import threading

from tests.fakes.simulated_usb1 import SimulatedUsb1
from usbip_capture.demo.device import DESCRIPTORS, INFO
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.server import Server
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType


class Lent(SimulatedDevice):
    def __init__(self, *, ready: bool) -> None:
        super().__init__(INFO, DESCRIPTORS)
        self._ready = ready

    def submit(self, transfer: Transfer) -> None:
        urb = transfer.urb
        if urb.transfer_type != TransferType.BULK:
            super().submit(transfer)
        elif self._ready:
            transfer.finish(Completion(0, urb.length, bytes(urb.length) if urb.endpoint & DIR_IN else b""))

    def cancel(self, transfer: Transfer) -> None:
        if transfer.urb.transfer_type != TransferType.BULK:
            super().cancel(transfer)
        elif transfer.completion is None:
            transfer.finish(Completion(-ECONNRESET))


def main() -> None:
    module = SimulatedUsb1()
    module.plug(Lent(ready=sys.argv[1] == "ready"))
    bus = LocalBus(Libusb(module), "/there/is/no/sysfs")
    server = Server()
    server.add(INFO, bus.devices()[0].open)
    sys.stdout.write(f"{server.listen('127.0.0.1', 0)[1]}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
