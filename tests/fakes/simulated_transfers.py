"""The transfers and errors of `simulated_usb1`, which stands in for the module `usb1`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from usbip_capture.device import Transfer
from usbip_capture.usb import status as st
from usbip_capture.usb.setup import Setup
from usbip_capture.usb.urb import DIR_IN, Completion, IsoPacket, TransferType, Urb

if TYPE_CHECKING:
    from tests.fakes.simulated_usb1 import USBDeviceHandle

COMPLETED, ERROR, TIMED_OUT, CANCELLED, STALL, NO_DEVICE, OVERFLOW = range(7)
_STATUS = {
    0: COMPLETED,
    -st.EPIPE: STALL,
    -st.EOVERFLOW: OVERFLOW,
    -st.ECONNRESET: CANCELLED,
    -st.ENOENT: CANCELLED,
    -st.ESHUTDOWN: NO_DEVICE,
    -st.ENODEV: NO_DEVICE,
}
SETUP_SIZE, _MAX_CONTROL = 8, 4096


class USBError(Exception):
    value = -99

    def __init__(self, value: int | None = None) -> None:
        super().__init__()
        if value is not None:
            self.value = value

    def __str__(self) -> str:
        return f"{type(self).__name__} [{self.value}]"


ERRORS: dict[str, type[USBError]] = {
    name: type(f"USBError{name}", (USBError,), {"value": value})
    for name, value in {
        "IO": -1,
        "InvalidParam": -2,
        "Access": -3,
        "NoDevice": -4,
        "NotFound": -5,
        "Busy": -6,
        "Timeout": -7,
        "Overflow": -8,
        "Pipe": -9,
        "Interrupted": -10,
        "NoMem": -11,
        "NotSupported": -12,
        "Other": -99,
    }.items()
}


def error(name: str) -> USBError:
    """A USBError of this kind."""
    return ERRORS[name]()


class USBTransfer:
    def __init__(self, handle: USBDeviceHandle, size: int) -> None:
        self.handle = handle
        self.size = size
        self.iso_packets: list[SimpleNamespace] = []
        self._USBTransfer__transfer = self.contents = self  # where the binding finds the packets, and the struct
        self.status = self.actual_length = self.length = 0
        self.endpoint = 0
        self.submitted = False
        self.add_zero_packet = False
        self._callback: Callable[[USBTransfer], object] = lambda transfer: None
        self._type = TransferType.CONTROL
        self._buffer: Any = bytearray()
        self._transfer: Transfer | None = None
        self._ended = True
        self._lock = threading.Lock()

    def setControl(
        self, kind: int, request: int, value: int, index: int, content: int | bytes, callback: Callable[..., object]
    ) -> None:
        data = bytes(content)
        memory = bytearray(Setup(kind, request, value, index, len(data)).pack() + data)
        self._set(TransferType.CONTROL, 0, memory, callback)

    def setBulk(self, endpoint: int, content: int | bytearray, callback: Callable[..., object]) -> None:
        self._set(TransferType.BULK, endpoint, content, callback)

    def setInterrupt(self, endpoint: int, content: int | bytearray, callback: Callable[..., object]) -> None:
        self._set(TransferType.INTERRUPT, endpoint, content, callback)

    def setIsochronous(
        self,
        endpoint: int,
        content: int | bytearray,
        callback: Callable[..., object],
        iso_transfer_length_list: Sequence[int] = (),
    ) -> None:
        self._set(TransferType.ISOCHRONOUS, endpoint, content, callback)
        if any(length <= 0 for length in iso_transfer_length_list):
            raise ValueError("Negative/null length transfers are not possible.")
        if len(iso_transfer_length_list) > self.size or sum(iso_transfer_length_list) > len(self._buffer):
            raise ValueError("too many packets, or too long")
        self.iso_packets = [SimpleNamespace(length=n, actual_length=0, status=0) for n in iso_transfer_length_list]

    def _set(self, kind: TransferType, endpoint: int, content: Any, callback: Callable[..., object]) -> None:
        if self.submitted:
            raise ValueError("Cannot alter a submitted transfer")
        self._type, self.endpoint, self._callback = kind, endpoint, callback
        self._buffer = content if isinstance(content, bytearray) else bytearray(content)
        self.length = len(self._buffer)

    def setAddZeroPacket(self, on: bool) -> None:
        self.add_zero_packet = on

    def getBuffer(self) -> Any:
        return memoryview(self._buffer)[SETUP_SIZE if self._type == TransferType.CONTROL else 0 :]

    def getStatus(self) -> int:
        return self.status

    def getActualLength(self) -> int:
        return self.actual_length

    def isSubmitted(self) -> bool:
        return self.submitted

    def submit(self) -> None:
        attached, module = self.handle.attached, self.handle.module
        assert not self.submitted, "Cannot submit a submitted transfer"
        attached.before_submit()
        if attached.gone:
            raise error("NoDevice")
        assert not self.handle.closed
        if self._type == TransferType.CONTROL:
            self.endpoint = self._buffer[0] & DIR_IN
            if self.length > SETUP_SIZE + _MAX_CONTROL:
                raise error("InvalidParam")
        else:
            endpoint = attached.endpoints.find(self.endpoint)
            if endpoint is None:
                raise error("IO")
            if endpoint.bInterfaceNumber in attached.holders or endpoint.bInterfaceNumber in attached.drivers:
                raise error("IO")
            if any(packet.length > endpoint.packet_size for packet in self.iso_packets):
                raise error("InvalidParam")
        with module.lock:
            if module.used + self.length > module.memory:
                raise error("NoMem")
            module.used += self.length
            attached.flying[self] = None
        self.submitted, self._ended = True, False
        self._transfer = Transfer(self._urb(), self._done)
        try:
            attached.device.submit(self._transfer)
        except Exception:  # noqa: BLE001  a device fails, libusb does not
            self.end(ERROR, Completion(0))

    def _urb(self) -> Urb:
        inward = self.endpoint & DIR_IN
        data = b"" if inward else bytes(self.getBuffer()[: self.length])
        if self._type == TransferType.CONTROL:
            return Urb.control(bytes(self._buffer[:SETUP_SIZE]), data[: self.length - SETUP_SIZE])
        packets, at = [], 0
        for packet in self.iso_packets:
            packets.append(IsoPacket(at, packet.length))
            at += packet.length
        length = at if packets else self.length
        return Urb(self._type, self.endpoint, length, data[:length], packets=packets, interval=8)

    def _done(self, completion: Completion) -> None:
        self.end(_STATUS.get(completion.status, ERROR), completion)

    def end(self, status: int, completion: Completion | None = None) -> None:
        """The kernel is through with it; its callback comes from whoever handles events."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        attached, module = self.handle.attached, self.handle.module
        if completion is None:
            completion = Completion(0, packets=[IsoPacket(0, 0, 0, -st.EXDEV) for _ in self.iso_packets])
            transfer = self._transfer
            if transfer is not None:
                attached.device.abandon(transfer)
        if attached.mutate is not None:
            status, completion = attached.mutate(self, status, completion)
        self.status, self.actual_length = status, completion.actual_length
        if self.endpoint & DIR_IN and not self.iso_packets:
            self.getBuffer()[: len(completion.data)] = completion.data
        at = taken = 0
        for packet, result in zip(self.iso_packets, completion.packets, strict=False):
            packet.actual_length, packet.status = result.actual_length, _STATUS.get(result.status, ERROR)
            if self.endpoint & DIR_IN:
                self._buffer[at : at + packet.actual_length] = completion.data[taken : taken + packet.actual_length]
                taken += packet.actual_length
            at += packet.length
        if self.iso_packets:
            self.actual_length = 0
        with module.lock:
            attached.flying.pop(self, None)
            module.used -= self.length
        module.contexts[-1].post(self._call_back)

    def _call_back(self) -> None:
        self.submitted = False
        transfer = self._transfer
        self._callback(self)
        if self._transfer is transfer:  # it was not submitted again
            self._transfer = None

    def cancel(self) -> None:
        self.handle.attached.on_cancel(self)
        transfer = self._transfer
        if not self.submitted or self._ended or transfer is None:
            raise error("NotFound")
        self.handle.attached.device.cancel(transfer)
        if not self._ended and self._type == TransferType.CONTROL:
            self.end(CANCELLED)
