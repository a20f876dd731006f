"""In place of the module `usb1`: the simulated one with transfers that are done at once, and cost next to nothing.

What is measured is the server, not the simulation. Events come by a file descriptor, as usbfs has it; one that handles
events waits for it in a system call.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes import simulated_transfers, simulated_usb1
from tests.fakes.simulated_transfers import SETUP_SIZE
from tests.fakes.simulated_usb1 import SimulatedUsb1
from usbip_capture.device import Device
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.urb import DIR_IN, Urb


class ReadyUsb1(SimulatedUsb1):
    """`plug` a device first: its descriptors are asked for; all that is moved in bulk is zeros."""

    SPEED_UNKNOWN, SPEED_LOW, SPEED_FULL, SPEED_HIGH, SPEED_SUPER = range(5)

    def USBContext(self) -> Context:
        context = Context(self)
        self.contexts.append(context)
        return context

    def plug(self, device: Device, ports: Sequence[int] = (1,)) -> simulated_usb1.USBDevice:
        attached = Plugged(self, device, ports)
        self.attached.append(attached)
        return attached


class Context(simulated_usb1.USBContext):
    def __init__(self, module: SimulatedUsb1) -> None:
        super().__init__(module)
        self.signal = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self.signal, select.POLLIN)

    def getPollFDList(self) -> list[tuple[int, int]]:
        return [(self.signal, select.POLLIN)]

    def setPollFDNotifiers(self, added: object, removed: object) -> None:
        pass

    def getDeviceList(self) -> list[simulated_usb1.USBDevice]:
        return list(self.module.attached)

    def post(self, event: Callable[[], object]) -> None:
        self.events.append(event)
        os.eventfd_write(self.signal, 1)

    def handleEvents(self) -> None:
        self._poll.poll()
        self.handleEventsTimeout()

    def handleEventsTimeout(self, tv: float = 0) -> None:
        try:
            os.eventfd_read(self.signal)
        except BlockingIOError:
            pass
        while self.events:
            self.events.popleft()()

    def interruptEventHandler(self) -> None:
        os.eventfd_write(self.signal, 1)


class Plugged(simulated_usb1.USBDevice):
    def __init__(self, module: SimulatedUsb1, device: Device, ports: Sequence[int]) -> None:
        super().__init__(module, device, ports)
        described = self.device_descriptor
        self.answers: dict[bytes, bytes] = {}
        self.getVendorID = lambda: described.idVendor
        self.getProductID = lambda: described.idProduct
        self.getbcdDevice = lambda: described.bcdDevice
        self.getDeviceClass = lambda: described.bDeviceClass
        self.getDeviceSubClass = lambda: described.bDeviceSubClass
        self.getDeviceProtocol = lambda: described.bDeviceProtocol
        self.getNumConfigurations = lambda: described.bNumConfigurations

    def open(self) -> Handle:
        return Handle(self.module, self)

    def answer(self, setup: bytes) -> bytes:
        """Data of an IN request, asked for once."""
        if setup not in self.answers:
            self.answers[setup] = bytes(self.device.run(Urb.control(setup)).data)
        return self.answers[setup]


class Handle(simulated_usb1.USBDeviceHandle):
    """Control transfers of its own wait as libusb does: by handling events meanwhile."""

    def getTransfer(self, iso_packets: int = 0) -> Any:
        return Transfer(self)

    def controlRead(self, kind: int, request: int, value: int, index: int, length: int) -> bytes:
        transfer = self._run(kind, request, value, index, length)
        return bytes(transfer.getBuffer()[: transfer.getActualLength()])

    def controlWrite(self, kind: int, request: int, value: int, index: int, data: bytes) -> int:
        return self._run(kind, request, value, index, data).getActualLength()

    def _run(self, kind: int, request: int, value: int, index: int, content: int | bytes) -> Transfer:
        transfer = Transfer(self)
        ended: list[object] = []
        transfer.setControl(kind, request, value, index, content, ended.append)
        transfer.submit()
        context: Any = self.module.contexts[-1]
        while not ended:
            context.handleEventsTimeout()
        return transfer


class Transfer:
    __slots__ = (
        "_USBTransfer__transfer",
        "_buffer",
        "_callback",
        "_context",
        "_plugged",
        "actual_length",
        "contents",
        "length",
    )
    status = 0

    def __init__(self, handle: Handle) -> None:
        self._plugged: Any = handle.attached
        self._context: Any = handle.module.contexts[-1]
        self._buffer: Any = b""
        self._callback: Callable[..., object] = print
        self._USBTransfer__transfer = self.contents = self  # where the binding finds the struct
        self.actual_length = self.length = 0

    def setControl(
        self, kind: int, request: int, value: int, index: int, content: int | bytes, callback: Callable[..., object]
    ) -> None:
        data = bytes(content)
        self._fill(bytearray(Setup(kind, request, value, index, len(data)).pack() + data), callback)
        self._buffer = memoryview(self._buffer)[SETUP_SIZE:]

    def setBulk(self, endpoint: int, content: int | bytes | bytearray, callback: Callable[..., object]) -> None:
        self._fill(content if isinstance(content, bytearray) else bytearray(content), callback)

    setInterrupt = setBulk

    def _fill(self, memory: bytearray, callback: Callable[..., object]) -> None:
        self._buffer, self._callback, self.length = memory, callback, len(memory)

    def setAddZeroPacket(self, on: bool) -> None:
        pass

    def getBuffer(self) -> Any:
        return self._buffer

    def getStatus(self) -> int:
        return 0

    def getActualLength(self) -> int:
        return self.actual_length

    def submit(self) -> None:
        buffer, self.actual_length = self._buffer, self.length
        if type(buffer) is memoryview:  # a control transfer
            self.actual_length -= SETUP_SIZE
            setup = bytes(memoryview(buffer.obj)[:SETUP_SIZE])
            if setup[0] & DIR_IN:
                answer = self._plugged.answer(setup)
                buffer[: len(answer)] = answer
                self.actual_length = len(answer)
        self._context.post(self._ended)

    def cancel(self) -> None:
        raise simulated_transfers.error("NotFound")

    def _ended(self) -> None:
        self._callback(self)
