"""Asynchronous transfers on a device of our backend: many in flight, each a future.

`concurrent.futures` for threads, `asyncio` by the adapter around it; both use the same transfers as PyUSB's calls.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from types import TracebackType

import usb.core

from usbip_capture.device import UNLINK_GRACE, Device, Transfer
from usbip_capture.host.opened import OpenDevice
from usbip_capture.host.transfers import in_urb, out_urb
from usbip_capture.pyusb_backend.errors import as_usb_errors, invalid, usb_error
from usbip_capture.system.timetable import Due, Timetable
from usbip_capture.usb.setup import Setup, classify
from usbip_capture.usb.status import ECONNRESET, ENOMEM, is_known
from usbip_capture.usb.urb import DIR_IN, Buffer, Completion, IsoPacket, Urb
from usbip_capture.wire.structs import MAX_ISO_PACKETS


class TransferFuture(Future[Completion]):
    """A transfer under way; its result is the Completion of its URB.

    `cancel` unlinks the transfer at once: what it may have brought meanwhile is lost.
    """

    def __init__(self, unlink: Callable[[], None]) -> None:
        super().__init__()
        self._unlink: Callable[[], None] | None = unlink

    def cancel(self) -> bool:
        """False if it is done already."""
        cancelled = super().cancel()
        if cancelled:
            self.unlink()
        return cancelled

    @property
    def unlinked(self) -> bool:
        """Whether a CMD_UNLINK was sent for it."""
        return self._unlink is None

    def unlink(self) -> None:
        """Unlink the transfer, once: servers answer only one CMD_UNLINK for each."""
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()


class AsynchronousDevice:
    """Futures for the transfers of `dev`, which comes from `usb.core.find(backend=get_backend(...))`.

    Completions have `data` (IN, isochronous: packed), `actual_length` and `packets` (isochronous: their lengths and
    status, which PyUSB itself does not report). Each transfer is one URB of at most `max_transfer` bytes. Time-outs are
    in milliseconds, None is none. Futures raise what PyUSB's own calls raise; their callbacks run on the thread that
    reads for all, and must not wait for transfers of the same device.

    Raises TypeError for a device of another backend.
    """

    def __init__(self, dev: usb.core.Device) -> None:
        self._timetable = Timetable("usbip-timeouts")
        self._closed = False
        opened = dev._ctx.managed_open()
        if not isinstance(opened, OpenDevice):
            raise TypeError("asynchronous transfers need a device of usbip_capture.get_backend")
        self._opened = opened

    @as_usb_errors
    def read(self, endpoint: int, size: int, timeout: int | None = None) -> TransferFuture:
        """An IN transfer of at most `size` bytes; isochronous: as many packets as fit. Raises USBError."""
        found = self._opened.endpoint(endpoint)
        if not endpoint & DIR_IN:
            raise invalid(f"endpoint {endpoint:#04x} is an OUT endpoint, nothing can be read from it")
        return self._submit(in_urb(found, size), timeout)

    @as_usb_errors
    def write(self, endpoint: int, data: Buffer, timeout: int | None = None) -> TransferFuture:
        """An OUT transfer; `data` must not be changed before it is done. Raises USBError."""
        found = self._opened.endpoint(endpoint)
        if endpoint & DIR_IN:
            raise invalid(f"endpoint {endpoint:#04x} is an IN endpoint, nothing can be written to it")
        return self._submit(out_urb(found, memoryview(data)), timeout)

    @as_usb_errors
    def control(
        self,
        bmRequestType: int,
        bRequest: int,
        wValue: int = 0,
        wIndex: int = 0,
        data_or_wLength: Buffer | int = b"",
        timeout: int | None = None,
    ) -> TransferFuture:
        """A control transfer. Requests that change the settings are for PyUSB's own methods: USBError."""
        data = b"" if isinstance(data_or_wLength, int) else memoryview(data_or_wLength).cast("B")
        length = data_or_wLength if isinstance(data_or_wLength, int) else len(data)
        if length and isinstance(data_or_wLength, int) and not bmRequestType & DIR_IN:
            raise invalid(f"a control transfer OUT needs the data itself, not their length {length}")
        try:
            setup = Setup(bmRequestType, bRequest, wValue, wIndex, length).pack()
        except struct.error as error:
            raise invalid(f"a field of the control transfer cannot be sent: {error}") from error
        if classify(setup) is not None:
            raise invalid("settings are changed with set_configuration, set_interface_altsetting and clear_halt")
        return self._submit(Urb.control(setup, data), timeout)

    def close(self) -> None:
        """Start nothing more, and forget time-outs that are still due. Transfers under way go on."""
        self._closed = True
        self._timetable.close()

    def __del__(self) -> None:
        # The garbage collector runs in any thread, perhaps in one that what is due waits for.
        self._timetable.close(wait=False)

    def __enter__(self) -> AsynchronousDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, urb: Urb, timeout: int | None) -> TransferFuture:
        unit = self._opened.unit
        if self._closed:
            raise invalid("asynchronous transfers were ended by close()")
        if not 0 <= urb.length <= unit.max_transfer:
            raise invalid(f"{urb.length} bytes cannot be one URB: this server takes 0 to {unit.max_transfer}")
        if len(urb.packets) > MAX_ISO_PACKETS:
            raise invalid(f"{len(urb.packets)} packets are too many for one URB: at most {MAX_ISO_PACKETS}")
        device = unit.present()
        seconds = timeout / 1000 if timeout is not None and timeout > 0 else None
        due: Due | None = None

        def done(completion: Completion) -> None:
            if due is not None:
                self._timetable.drop(due)
            if not future.set_running_or_notify_cancel():
                return
            status = completion.status
            if status:
                if future.unlinked and not completion.actual_length and not is_known(status):
                    status = -ECONNRESET  # some servers' own number for it
                future.set_exception(usb_error(unit.failed(status, seconds, urb.endpoint)))
            else:
                future.set_result(completion)

        transfer = Transfer(urb, done)
        future = TransferFuture(lambda: self._unlink(device, transfer))
        device.submit(transfer)
        if seconds is not None:
            # Not before: a time-out that is over at once would cancel what the device does not know yet.
            try:
                due = self._timetable.after(seconds, future.unlink)
            except RuntimeError as error:  # no thread to be had
                future.unlink()
                raise usb_error(unit.failed(-ENOMEM, None, urb.endpoint)) from error
            if transfer.completion is not None:  # `done` was quicker, and dropped nothing
                self._timetable.drop(due)
        return future

    def _unlink(self, device: Device, transfer: Transfer) -> None:
        """`Device.unlink` without waiting."""
        if transfer.completion is None:
            device.cancel(transfer)
            try:
                self._timetable.after(UNLINK_GRACE, lambda: device.abandon(transfer))
            except RuntimeError:  # no thread to wait in
                device.abandon(transfer)


class AsyncioDevice:
    """The same for `asyncio`: `await dev.read(0x81, 64)`. Cancelling a task cancels its transfer."""

    def __init__(self, dev: usb.core.Device) -> None:
        self._device = AsynchronousDevice(dev)

    async def read(self, endpoint: int, size: int, timeout: int | None = None) -> bytes:
        """What an IN transfer brings."""
        return bytes((await asyncio.wrap_future(self._device.read(endpoint, size, timeout))).data)

    async def write(self, endpoint: int, data: Buffer, timeout: int | None = None) -> int:
        """Bytes that an OUT transfer has moved."""
        return (await asyncio.wrap_future(self._device.write(endpoint, data, timeout))).actual_length

    async def control(
        self,
        bmRequestType: int,
        bRequest: int,
        wValue: int = 0,
        wIndex: int = 0,
        data_or_wLength: Buffer | int = b"",
        timeout: int | None = None,
    ) -> bytes:
        """What the data stage of a control transfer brings, nothing for OUT."""
        future = self._device.control(bmRequestType, bRequest, wValue, wIndex, data_or_wLength, timeout)
        return bytes((await asyncio.wrap_future(future)).data)

    async def iso_read(self, endpoint: int, size: int, timeout: int | None = None) -> list[tuple[IsoPacket, bytes]]:
        """Each packet of an isochronous IN transfer with its data."""
        completion = await asyncio.wrap_future(self._device.read(endpoint, size, timeout))
        found, at = [], 0
        for packet in completion.packets:
            found.append((packet, bytes(completion.data[at : at + packet.actual_length])))
            at += packet.actual_length
        return found

    async def stream(self, endpoint: int, size: int, depth: int = 4) -> AsyncIterator[bytes]:
        """What an IN endpoint sends, transfer by transfer, with `depth` of them always in flight."""
        flying = deque(self._device.read(endpoint, size) for _ in range(depth))
        try:
            while True:
                completion = await asyncio.wrap_future(flying[0])
                flying.popleft()
                flying.append(self._device.read(endpoint, size))
                yield bytes(completion.data)
        finally:
            for future in flying:
                future.cancel()

    def close(self) -> None:
        """See AsynchronousDevice."""
        self._device.close()

    def __enter__(self) -> AsyncioDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
