"""Transfers of libusb, used again and again. The module `usb1` comes from `binding`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from usbip_capture.devices.libusb.statuses import Failure
from usbip_capture.usb.urb import Buffer, TransferType

log = logging.getLogger(__name__)

#: Bytes of a setup stage, and of a control transfer's data stage that libusb takes.
SETUP_SIZE, MAX_CONTROL = 8, 4096
#: Bytes of memory that a slot has of its own: copying more costs more than filling a transfer anew.
_OWN = 16 << 10


def called(usb1: Any, function: Callable[..., Any], *arguments: object) -> Any:
    """What a function of `usb1` returns; raises Failure where it raises its own errors."""
    try:
        return function(*arguments)
    except usb1.USBError as error:
        raise Failure(int(error.value or 0)) from error


class Slot:
    """A transfer of libusb, used for one URB after the other: that is twice as fast as a new one each time.

    One of few bytes goes by memory of the slot's own, with which usb1 fills the transfer once for each kind: for the
    next URBs only what differs is written, which costs a tenth of that.
    landed: called with it when it has ended, on the event thread. owner: for who submits it. buffer: of the data stage.
    """

    __slots__ = (
        "_filled",
        "_memory",
        "_raw",
        "_transfer",
        "_usb1",
        "_zero_packet",
        "buffer",
        "landed",
        "owner",
        "size",
    )

    def __init__(self, usb1: Any, raw: Any, size: int) -> None:
        self._usb1 = usb1
        self._raw = raw
        self._transfer = raw._USBTransfer__transfer.contents  # struct libusb_transfer
        self._filled: TransferType | None = None  # for what, with our memory
        self._memory = memoryview(b"")
        self._zero_packet = False
        self.size = size
        self.landed: Callable[[Slot], None] | None = None
        self.owner: Any = None
        self.buffer: Any = b""

    def control(self, setup: bytes, data: Buffer | None) -> None:
        """`data` of the OUT data stage; None for one of IN. Of at most MAX_CONTROL bytes."""
        if self._filled != TransferType.CONTROL:
            self._raw.setControl(0, 0, 0, 0, MAX_CONTROL, self._ended)
            self._memory = memoryview(self._raw.getBuffer().obj)
            self._filled = TransferType.CONTROL
            self._set_zero_packet(False)
        memory, end = self._memory, SETUP_SIZE + (setup[6] | setup[7] << 8)
        memory[:SETUP_SIZE] = setup
        if data is not None:
            memory[SETUP_SIZE:end] = data
        self._transfer.length = end
        self.buffer = memory[SETUP_SIZE:end]

    def move(
        self, kind: TransferType, endpoint: int, length: int, data: Buffer | None, *, zero_packet: bool = False
    ) -> None:
        """Bulk or interrupt. `data` of OUT, which stays as it is until it has ended; None for IN."""
        if length > _OWN:
            if data is None:
                self.buffer = bytearray(length)
            else:  # memory that libusb can read where it is, if the client's side has made it so
                self.buffer = data if isinstance(data, bytearray) else bytearray(data)
            self._filled = None
            self._fill(kind, endpoint, self.buffer)
        else:
            if self._filled != kind:
                memory = bytearray(_OWN)
                self._fill(kind, endpoint, memory)
                self._memory = memoryview(memory)
                self._filled = kind
            self._transfer.endpoint = endpoint
            self._transfer.length = length
            self.buffer = self._memory[:length]
            if data is not None:
                self.buffer[:] = data
        if zero_packet != self._zero_packet:
            self._set_zero_packet(zero_packet)

    def _fill(self, kind: TransferType, endpoint: int, memory: bytearray) -> None:
        fill = self._raw.setInterrupt if kind == TransferType.INTERRUPT else self._raw.setBulk
        fill(endpoint, memory, self._ended)

    def _set_zero_packet(self, wanted: bool) -> None:
        self._raw.setAddZeroPacket(wanted)
        self._zero_packet = wanted

    def received(self, size: int) -> Buffer:
        """The first bytes of the data stage, as long as anybody wants them."""
        if self._filled is not None:
            return bytes(self.buffer[:size])  # as our memory is used again
        # A copy, too, if most of it would be kept for nothing.
        return memoryview(self.buffer)[:size] if size * 2 > len(self.buffer) else bytes(self.buffer[:size])

    def isochronous(self, endpoint: int, buffer: bytearray, lengths: Sequence[int]) -> None:
        """Packets that lie end to end in `buffer`."""
        # usb1 refuses packets of no length, which usbfs takes: they are put there afterwards.
        ones = [1] * len(lengths)
        if len(buffer) < len(ones):
            buffer = bytearray(len(ones)) if not buffer else buffer.ljust(len(ones), b"\0")
        self._raw.setIsochronous(endpoint, buffer, self._ended, iso_transfer_length_list=ones)
        self._filled = None
        for packet, length in zip(self._packets(), lengths, strict=False):
            packet.length = length
        self.buffer = buffer

    def submit(self) -> None:
        """Raises Failure; else `landed` is called, perhaps before this returns."""
        try:
            self._raw.submit()
        except self._usb1.USBError as error:
            raise Failure(int(error.value or 0)) from error

    def cancel(self) -> None:
        """Ask for its end. How it ended is known when it has landed: this may come too late."""
        try:
            self._raw.cancel()
        except self._usb1.USBError as error:
            log.debug("a transfer cannot be cancelled: %s", error)

    @property
    def status(self) -> int:
        """libusb_transfer_status; COMPLETED for isochronous ones, whatever became of their packets."""
        return int(self._transfer.status)

    @property
    def actual_length(self) -> int:
        """Bytes moved; 0 for isochronous ones."""
        return int(self._transfer.actual_length)

    def packets(self) -> list[tuple[int, int, int]]:
        """Status, length and actual length of each isochronous packet."""
        return [(packet.status, packet.length, packet.actual_length) for packet in self._packets()]

    def _packets(self) -> Any:
        return self._usb1._libusb1.get_iso_packet_list(self._raw._USBTransfer__transfer)

    def close(self) -> None:
        """Make usb1 forget the buffer and us, which is a cycle. Not submitted; it may be used again."""
        self._filled = None
        self._raw.setBulk(0, bytearray(), None)

    def _ended(self, raw: object) -> None:
        landed = self.landed
        try:
            if landed is not None:
                landed(self)
        except Exception:  # libusb would print it and go on
            log.exception("a transfer of libusb could not be handled")
