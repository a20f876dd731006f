"""A device that sends back and keeps what it is sent, and a host that takes the steps of a session, captured."""

from __future__ import annotations

import io
from struct import pack
from typing import Any

from usbip_capture.capture.writer import PcapWriter
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_IN, CDC_OUT, DESCRIPTORS, INFO, KEYS_IN
from usbip_capture.device import Device, Transfer
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.tap import Tapped
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

TIMEOUT = 60.0
STORE = 0x10
_LOOPS = {BULK_OUT: BULK_IN, CDC_OUT: CDC_IN}
Step = tuple[Any, ...]
Results = list[tuple[int, bytes]]


class StoringDevice(SimulatedDevice):
    """Sends back what it is sent, and keeps what it is asked to keep."""

    def __init__(self) -> None:
        super().__init__(INFO, DESCRIPTORS)
        self._stored: dict[int, bytes] = {}

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if setup.bmRequestType == 0x21:  # of a serial port: its line
            return b""
        if setup.bRequest != STORE:
            return None
        if not setup.bmRequestType & DIR_IN:
            self._stored[setup.wValue] = data
            return b""
        return self._stored.get(setup.wValue)

    def received(self, address: int, data: bytes) -> None:
        self.loop_back(address, _LOOPS[address], data)


class Host:
    """Takes the steps of a session, one after the other, as a program does."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.results: Results = []

    def run(self, urb: Urb) -> Completion:
        transfer = Transfer(urb)
        self._device.submit(transfer)
        assert self._device.wait(transfer, TIMEOUT), urb
        assert transfer.completion is not None
        self.results.append((transfer.completion.status, bytes(transfer.completion.data)))
        return transfer.completion

    def control(self, kind: int, request: int, value: int, index: int, content: bytes | int) -> None:
        length = content if isinstance(content, int) else len(content)
        sent = b"" if isinstance(content, int) else content
        setup = pack("<BBHHH", kind, request, value, index, length)
        self.run(Urb(TransferType.CONTROL, kind & DIR_IN, length, sent, setup))

    def loop(self, address: int, data: bytes, size: int) -> None:
        self.run(Urb(TransferType.BULK, address, len(data), data))
        got = 0
        while got < len(data):
            got += self.run(Urb(TransferType.BULK, _LOOPS[address], size)).actual_length

    def key(self, source: SimulatedDevice | None, code: int) -> None:
        """The device sends it by itself; a replayed one does as well."""
        if source is not None:
            source.feed(KEYS_IN, bytes([0, 0, code, 0, 0, 0, 0, 0]))
        self.run(Urb(TransferType.INTERRUPT, KEYS_IN, 8))

    def unlink(self, address: int) -> None:
        transfer = Transfer(Urb(TransferType.BULK, address, 64))
        self._device.submit(transfer)
        self._device.cancel(transfer)
        assert self._device.wait(transfer, TIMEOUT)

    def unplug(self, source: SimulatedDevice | None, address: int) -> None:
        """While the host waits for data."""
        transfer = Transfer(Urb(TransferType.BULK, address, 64))
        self._device.submit(transfer)
        if source is not None:
            source.unplug()
        assert self._device.wait(transfer, TIMEOUT)
        assert transfer.completion is not None
        self.results.append((transfer.completion.status, b""))

    def take(self, step: Step, source: SimulatedDevice | None) -> None:
        name, *given_ = step
        if name in ("key", "unplug"):
            getattr(self, name)(source, *given_)
        else:
            getattr(self, name)(*given_)


#: As each system does with each device.
_FIRST: list[Step] = [
    ("control", 0x80, 6, 0x0100, 0, 18),
    ("control", 0x80, 6, 0x0200, 0, 9),
    ("control", 0x80, 6, 0x0200, 0, 255),
    ("control", 0x00, 9, 1, 0, 0),
]


def captured(device: Device, steps: list[Step], source: SimulatedDevice | None) -> tuple[Results, bytes]:
    """What its host gets, and the capture of that."""
    target = io.BytesIO()
    with PcapWriter(target) as writer:
        tapped = Tapped(device, writer.add_usb_interface(INFO, server="bench"))
        host = Host(tapped)
        try:
            for step in _FIRST + steps:
                host.take(step, source)
        finally:
            tapped.close()
    return host.results, target.getvalue()
