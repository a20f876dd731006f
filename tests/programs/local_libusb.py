"""A program that uses the demo device at 1-1 of this machine by libusb, and prints what came of it as JSON.

Argument `system`: by the system's libusb, not by that of libusb-package.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from typing import Any

from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_NOTIFY, ISO_IN, ISO_OUT
from usbip_capture.device import Transfer
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.device import LibusbDevice
from usbip_capture.usb import setup as requests
from usbip_capture.usb.urb import SHORT_NOT_OK, IsoPacket, TransferType, Urb

TIMEOUT = 20.0


def run(device: LibusbDevice, urb: Urb) -> list[Any]:
    """Status, actual length and data in hexadecimal."""
    completion = device.run(urb, TIMEOUT)
    return [completion.status, completion.actual_length, bytes(completion.data).hex()]


def iso(address: int, lengths: list[int], data: bytes = b"") -> Urb:
    """Packets that lie end to end."""
    packets, at = [], 0
    for length in lengths:
        packets.append(IsoPacket(at, length))
        at += length
    return Urb(TransferType.ISOCHRONOUS, address, at, data, packets=packets, interval=8)


def tried(device: LibusbDevice) -> dict[str, Any]:
    """All kinds of transfers."""
    found: dict[str, Any] = {}
    found["descriptor"] = run(device, Urb.control(requests.get_descriptor(1, 0, 0, 18).pack()))
    found["stall"] = run(device, Urb.control(requests.Setup(0xC0, 0x77, 0, 0, 4).pack()))
    found["control out"] = run(device, Urb.control(requests.Setup(0x40, 0x10, 0, 0, 3).pack(), b"abc"))
    found["control in"] = run(device, Urb.control(requests.Setup(0xC0, 0x10, 0, 0, 64).pack()))
    found["bulk out"] = run(device, Urb(TransferType.BULK, BULK_OUT, 5, b"hello"))
    found["bulk in"] = run(device, Urb(TransferType.BULK, BULK_IN, 512, flags=SHORT_NOT_OK))
    reading = [Transfer(Urb(TransferType.BULK, BULK_IN, 512)) for _ in range(3)]
    notifying = Transfer(Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))
    for transfer in (*reading, notifying):
        device.submit(transfer)
    device.unlink(reading[:1], TIMEOUT)
    found["set interface"] = run(device, Urb.control(requests.set_interface(3, 1).pack()))
    found["cancelled, flushed"] = [t.completion and t.completion.status for t in reading]
    found["on another interface"] = notifying.completion
    found["iso out"] = run(device, iso(ISO_OUT, [3, 0, 2], b"abcde"))
    found["iso in"] = run(device, iso(ISO_IN, [8, 8, 8]))
    found["300 packets"] = run(device, iso(ISO_IN, [8] * 300))
    found["no packets"] = run(device, iso(ISO_IN, []))
    found["not there"] = run(device, Urb(TransferType.BULK, BULK_IN, 8))
    found["configuration"] = run(device, Urb.control(requests.set_configuration(1).pack()))
    found["clear halt"] = run(device, Urb.control(requests.clear_halt(BULK_IN).pack()))
    found["again"] = run(device, Urb(TransferType.BULK, BULK_OUT, 3, b"abc"))
    return found


def unplugged(device: LibusbDevice) -> dict[str, Any]:
    """Pulled out by a request that the emulator knows."""
    lost = threading.Event()
    device.watch(lambda reason: lost.set())
    pending = [Transfer(Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16)) for _ in range(3)]
    for transfer in pending:
        device.submit(transfer)
    run(device, Urb.control(requests.Setup(0x40, 0x7F, 0, 0, 0).pack()))
    ended = [
        device.wait(transfer, TIMEOUT) and transfer.completion and transfer.completion.status for transfer in pending
    ]
    return {"unplugged": ended, "lost": lost.wait(TIMEOUT) and device.loss, "later": run(device, pending[0].urb)}


def main() -> None:
    """Write it."""
    if sys.argv[1:] == ["system"]:
        sys.modules["libusb_package"] = None  # type: ignore[assignment]
    bus = LocalBus.shared()
    bus.watch(lambda: None)
    (local,) = bus.devices()
    device = local.open()
    usb1 = importlib.import_module("usb1")
    found = tried(device)
    found["version"] = ".".join(map(str, usb1.getVersion()[:3]))
    found["listed"] = [local.info.busid, local.product, local.info.speed, local.sysfs]
    last = Transfer(Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16))
    device.submit(last)
    closing = threading.Thread(target=device.close)
    closing.start()
    closing.join(TIMEOUT)
    found["closed"] = last.completion and last.completion.status
    again = local.open()
    found.update(unplugged(again))
    again.close()
    found["left"] = [device.info.busid for device in bus.devices()]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
