"""Devices that come and go with the garbage collector at work at each object: run by the test of the compiled build.

Writes which build it is, then `whole` if nothing was lost; one whose memory was damaged does not come so far.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.programs.forked import forked
from usbip_capture import PcapWriter
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import BULK_IN, BULK_OUT, DemoServer
from usbip_capture.device import Device, Transfer
from usbip_capture.devices.remote import RemoteDevice, import_device
from usbip_capture.net.transport import SocketTransport
from usbip_capture.system.compiling import build
from usbip_capture.tap import Tapped
from usbip_capture.usb.urb import FLAG_DIR_IN, Completion, TransferType, Urb

ROUNDS, URBS = 6, 12
TIMEOUT = 60.0
CONFIGURE = bytes.fromhex("0009010000000000")
DESCRIPTOR = bytes.fromhex("8006000100001200")


class Own(Device):
    """A device of the interpreter's kind, with weak references, around one of the compiled kind."""

    def __init__(self, device: Device) -> None:
        self.info = device.info
        self._device = device
        self.itself = self  # a cycle, for the collector

    @property
    def alive(self) -> bool:
        return self._device.alive

    def submit(self, transfer: Transfer) -> None:
        self._device.submit(transfer)

    def wait(self, transfer: Transfer, timeout: float | None = None) -> bool:
        return self._device.wait(transfer, timeout)

    def cancel(self, transfer: Transfer) -> None:
        self._device.cancel(transfer)

    def abandon(self, transfer: Transfer) -> None:
        self._device.abandon(transfer)

    def watch(self, on_lost: Callable[[str], None]) -> None:
        self._device.watch(on_lost)

    def close(self) -> None:
        self._device.close()


def imported(servers: ExitStack) -> RemoteDevice:
    """The demo device of a server of its own, for the next one may not find it free yet."""
    server = DemoServer()
    servers.callback(server.close)
    return import_device(SocketTransport(server.connect(), "the server"), demo.BUSID, TIMEOUT)


def use(device: Device) -> None:
    """Each kind of transfer, one that is cancelled, and one that nobody waits for."""
    assert not device.run(Urb.control(CONFIGURE), TIMEOUT).status
    for number in range(URBS):
        assert device.run(Urb.control(DESCRIPTOR), TIMEOUT).actual_length == 18
        data = bytes([number]) * 64
        assert not device.run(Urb(TransferType.BULK, BULK_OUT, 64, data), TIMEOUT).status
        assert device.run(Urb(TransferType.BULK, BULK_IN, 64, flags=FLAG_DIR_IN), TIMEOUT).data == data
    cancelled = Transfer(Urb(TransferType.BULK, BULK_IN, 64, flags=FLAG_DIR_IN))
    device.submit(cancelled)
    device.unlink([cancelled], TIMEOUT)
    assert cancelled.completion is not None
    seen: list[Completion] = []
    noticed = Transfer(Urb.control(DESCRIPTOR), seen.append)
    device.submit(noticed)
    assert device.wait(noticed, TIMEOUT)
    assert len(seen) == 1


def collect_as_heir(device: Device) -> None:
    """In a child that inherits the device."""
    gc.collect()
    assert not device.alive


def main() -> None:
    sys.stdout.write(f"{build()}\n")
    gc.set_threshold(1)
    gone: list[weakref.ref[Own]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        for number in range(ROUNDS):
            with PcapWriter(Path(folder, f"{number}.pcapng")) as writer:
                plain = imported(servers)
                own = Own(Tapped(plain, writer.add_usb_interface(plain.info, server="stress")))
                gone.append(weakref.ref(own))
                use(own)
                if number % 2 and hasattr(os, "fork"):
                    assert not forked(partial(collect_as_heir, plain))
                own.close()
                del own, plain
            left = imported(servers)
            use(left)
            left._transport.shut_down()  # and not closed: the collector finds what it has
            left._transport.close()
            del left
            gc.collect()
    gc.collect()
    assert not [ref for ref in gone if ref() is not None]
    sys.stdout.write("whole\n")


if __name__ == "__main__":
    main()
