"""URBs a second through a device by libusb, which is simulated: with the capture off, then on, in each round.

What is measured is ours and the simulation's, as no USB device is needed: bulk IN and OUT by turns, so many in flight,
on a device that is ready at once.

    python bench/libusb_device.py [--rounds 5] [--transfers 10000] [--in-flight 16] [--size 512]
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fakes.simulated_usb1 import SimulatedUsb1
from usbip_capture import PcapWriter
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DESCRIPTORS, INFO
from usbip_capture.device import Device, Transfer
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.tap import Tapped
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb


class Ready(SimulatedDevice):
    """The demo device's descriptors; each bulk transfer is done at once."""

    def __init__(self, size: int) -> None:
        super().__init__(INFO, DESCRIPTORS)
        self._data = bytes(size)

    def submit(self, transfer: Transfer) -> None:
        urb = transfer.urb
        if urb.transfer_type == TransferType.BULK:
            transfer.finish(Completion(0, urb.length, self._data if urb.endpoint & DIR_IN else b""))
        else:
            super().submit(transfer)


def run(device: Device, transfers: int, in_flight: int, size: int) -> float:
    """URBs a second: each completion submits the next one."""
    data = bytes(size)
    urbs = (Urb(TransferType.BULK, BULK_IN, size), Urb(TransferType.BULK, BULK_OUT, size, data))
    left = iter(range(transfers))
    finished = threading.Semaphore(0)
    failed: list[int] = []

    def submit() -> None:
        number = next(left, None)
        if number is None:
            finished.release()
        else:
            device.submit(Transfer(urbs[number & 1], done))

    def done(completion: Completion) -> None:
        if completion.status:
            failed.append(completion.status)
        submit()

    began = time.perf_counter()
    for _ in range(in_flight):
        submit()
    for _ in range(in_flight):
        finished.acquire()
    if failed:
        raise SystemExit(f"URBs failed: {failed[:5]}")
    return transfers / (time.perf_counter() - began)


def one_round(transfers: int, in_flight: int, size: int) -> tuple[float, float]:
    """URBs a second without and with a capture."""
    with ExitStack() as stack:
        module = SimulatedUsb1()
        module.plug(Ready(size))
        libusb = Libusb(module)
        stack.callback(libusb.close)
        device = LocalBus(libusb, "/there/is/no/sysfs").devices()[0].open()
        stack.callback(device.close)
        off = run(device, transfers, in_flight, size)
        writer = stack.enter_context(PcapWriter(io.BytesIO()))
        on = run(Tapped(device, writer.add_usb_interface(device.info, server="bench")), transfers, in_flight, size)
    return off, on


def main() -> None:
    """Print medians over all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    rounds = [one_round(args.transfers, args.in_flight, args.size) for _ in range(args.rounds)]
    off, on = (statistics.median(found) for found in zip(*rounds, strict=True))
    ratio = statistics.median(off / on for off, on in rounds)
    print(f"URBs of {args.size} bytes, {args.in_flight} in flight: {off:.0f}/s; with capture {on:.0f}/s")
    print(f"capture on: {ratio:.2f} times as dear")


if __name__ == "__main__":
    main()
