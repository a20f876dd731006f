"""A device that finishes nothing by itself: the tests of what waits for transfers make their own of it."""

from __future__ import annotations

from collections.abc import Callable

from usbip_capture.device import Device, Transfer
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion


class IdleDevice(Device):
    """Keeps what is submitted in `pending`, and what was to be cancelled in `cancelled`, until it is abandoned."""

    def __init__(self) -> None:
        self.info = DeviceInfo("1-1", 1, 2, Speed.FULL, 0x1209, 1)
        self.pending: list[Transfer] = []
        self.cancelled: list[Transfer] = []

    @property
    def alive(self) -> bool:
        return True

    def submit(self, transfer: Transfer) -> None:
        self.pending.append(transfer)

    def cancel(self, transfer: Transfer) -> None:
        self.cancelled.append(transfer)

    def abandon(self, transfer: Transfer) -> None:
        transfer.finish(Completion(-ECONNRESET))

    def watch(self, on_lost: Callable[[str], None]) -> None:
        pass

    def close(self) -> None:
        pass
