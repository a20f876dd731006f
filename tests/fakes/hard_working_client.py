"""A client that always has several URBs at a device, for captures that begin and end meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device, Transfer
from usbip_capture.usb.urb import TransferType, Urb

SIZE, AT_ONCE = 64, 8


def works(device: Device, stopping: threading.Event, on_round: Callable[[int], object] = lambda rounds: None) -> None:
    """In both directions, each URB with data that no other one has; on_round: gets how many have been done."""
    rounds = 0
    while not stopping.is_set():
        reads = [Transfer(Urb(TransferType.BULK, BULK_IN, SIZE)) for _ in range(AT_ONCE)]
        for transfer in reads:
            device.submit(transfer)
        for number in range(rounds * AT_ONCE + 1, (rounds + 1) * AT_ONCE + 1):
            assert device.run(Urb(TransferType.BULK, BULK_OUT, SIZE, number.to_bytes(SIZE, "big")), 60).status == 0
        for transfer in reads:
            assert device.wait(transfer, 60)
        rounds += 1
        on_round(rounds)
