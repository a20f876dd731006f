"""The shortest serial device there is: a CDC-ACM port that sends back what it gets, for tests of what is above it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from usbip_capture.demo import BUSID, CDC_IN, CDC_NOTIFY, CDC_OUT, DESCRIPTORS, INFO
from usbip_capture.device import Transfer
from usbip_capture.devices.chapter9 import Descriptors
from usbip_capture.devices.simulated import SimulatedDevice
from usbip_capture.server import Server
from usbip_capture.uart.cdc_acm import GET_LINE_CODING, SEND_BREAK, SET_CONTROL_LINE_STATE, SET_LINE_CODING
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType

_HOST_TO_INTERFACE = 0x21


class EchoDevice(SimulatedDevice):
    """Looped back: TX to RX, RTS to CTS, DTR to DSR and CD.

    latency: seconds before each transfer reaches the device. silent: what comes is kept in `taken` instead.
    deaf: OUT transfers do not end. requests: all control requests. lines: each state of DTR (bit 0) and RTS (bit 1).
    """

    def __init__(self, info: DeviceInfo = INFO, descriptors: Descriptors = DESCRIPTORS) -> None:
        super().__init__(info, descriptors)
        self.latency = 0.0
        self.silent = self.deaf = False
        self.taken = b""
        self.requests: list[Setup] = []
        self.codings: list[bytes] = []
        self.lines: list[int] = []
        self._held: list[Transfer] = []

    def submit(self, transfer: Transfer) -> None:
        if self.latency:
            self.timetable.after(self.latency, lambda: self._submit_now(transfer))
        else:
            self._submit_now(transfer)

    def _submit_now(self, transfer: Transfer) -> None:
        urb = transfer.urb
        if self.deaf and urb.transfer_type == TransferType.BULK and not urb.endpoint & DIR_IN:
            self._held.append(transfer)
            return
        super().submit(transfer)

    def cancel(self, transfer: Transfer) -> None:
        if transfer in self._held:
            self._held.remove(transfer)
            transfer.finish(Completion(-ECONNRESET))
        else:
            super().cancel(transfer)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        self.requests.append(setup)
        if setup.bRequest == SET_LINE_CODING and setup.bmRequestType == _HOST_TO_INTERFACE:
            self.codings.append(data)
            return b""
        if setup.bRequest == SET_CONTROL_LINE_STATE:
            self.lines.append(setup.wValue)
            dtr = setup.wValue & 1
            self.feed(CDC_NOTIFY, bytes.fromhex("a120 0000 0000 0200") + bytes([3 if dtr else 0, 0]))
            return b""
        if setup.bRequest == GET_LINE_CODING:
            return self.codings[-1] if self.codings else bytes(7)
        return b"" if setup.bRequest == SEND_BREAK else None

    def received(self, address: int, data: bytes) -> None:
        if address != CDC_OUT:
            return
        if self.silent:
            self.taken += data
        else:
            self.feed(CDC_IN, data)


class EchoServer:
    """Exports such devices; `devices` are all that were opened, the newest last."""

    def __init__(self, prepare: Callable[[EchoDevice], None]) -> None:
        self.devices: list[EchoDevice] = []
        self._prepare = prepare
        self.server = Server()
        self.export(INFO, DESCRIPTORS)
        self.port: int = self.server.listen("127.0.0.1", 0)[1]

    def export(self, info: DeviceInfo, descriptors: Descriptors) -> None:
        """Have one more device in the list."""

        def opened() -> EchoDevice:
            device = EchoDevice(info, descriptors)
            self._prepare(device)
            self.devices.append(device)
            return device

        self.server.add(info, opened)

    def become(self, idProduct: int, busid: str = BUSID) -> None:
        """The device is flashed and comes back as another product."""
        self.server.remove(BUSID)
        raw = DESCRIPTORS.device
        product = idProduct.to_bytes(2, "little")
        self.export(
            replace(INFO, idProduct=idProduct, busid=busid),
            replace(DESCRIPTORS, device=raw[:10] + product + raw[12:]),
        )

    def url(self, query: str = "", busid: str = BUSID) -> str:
        """Of its port."""
        return f"usbip://127.0.0.1:{self.port}/{busid}{'?' + query if query else ''}"


@contextmanager
def echo_server(prepare: Callable[[EchoDevice], None] = lambda device: None) -> Iterator[EchoServer]:
    """A server that is closed at the end."""
    server = EchoServer(prepare)
    try:
        yield server
    finally:
        server.server.close()
