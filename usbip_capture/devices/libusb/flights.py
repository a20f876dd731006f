"""A URB on its way through libusb, and what comes of it."""

from __future__ import annotations

from usbip_capture.device import Transfer
from usbip_capture.devices.libusb import statuses
from usbip_capture.devices.libusb.slots import Slot
from usbip_capture.usb.setup import HostAction
from usbip_capture.usb.status import EREMOTEIO, ESHUTDOWN, EXDEV
from usbip_capture.usb.urb import DIR_IN, SHORT_NOT_OK, ZERO_PACKET, Completion, IsoPacket, TransferType, Urb


class Flight:
    """transfer: None once it is finished before its slot has landed. action: of a request that is not passed on.

    cancelling: a thread is in libusb's cancel, so that the slot must not be used again. flushed: cancelled by us, for
    a request that ends all that is pending. unwanted: to be cancelled as soon as libusb has it. starving:
    since when usbfs has had no memory for it, on the monotonic clock.
    """

    __slots__ = (
        "action",
        "cancelling",
        "flushed",
        "interface",
        "landed",
        "size",
        "slot",
        "starving",
        "submitted",
        "transfer",
        "unwanted",
        "urb",
    )

    def __init__(self, transfer: Transfer, action: HostAction | None) -> None:
        self.transfer: Transfer | None = transfer
        self.urb = transfer.urb
        self.action = action
        self.slot: Slot | None = None
        self.interface = -1
        self.size = 0
        self.starving = 0.0
        self.cancelling = self.flushed = self.landed = self.submitted = self.unwanted = False


def load(slot: Slot, urb: Urb) -> None:
    """Put a URB into a transfer of libusb."""
    inward = bool(urb.endpoint & DIR_IN)
    if urb.transfer_type == TransferType.CONTROL:
        slot.control(urb.setup, None if inward else urb.data)
    elif urb.transfer_type == TransferType.ISOCHRONOUS:
        lengths = [packet.length for packet in urb.packets]
        slot.isochronous(urb.endpoint, bytearray(sum(lengths)) if inward else _packed(urb), lengths)
    else:
        data = None if inward else urb.data
        zero_packet = not inward and bool(urb.flags & ZERO_PACKET)
        slot.move(urb.transfer_type, urb.endpoint, urb.length, data, zero_packet=zero_packet)


def completion_of(flight: Flight, slot: Slot) -> Completion:
    """What came of the URB whose slot has landed."""
    urb, status = flight.urb, slot.status
    if urb.transfer_type == TransferType.ISOCHRONOUS:
        return _isochronous(flight, slot, status)
    actual = slot.actual_length
    result = 0 if not status and not flight.flushed else _result(flight, status, actual)
    if not urb.endpoint & DIR_IN:
        return Completion(result, actual)
    if not result and actual < urb.length and urb.flags & SHORT_NOT_OK:
        result = -EREMOTEIO
    return Completion(result, actual, slot.received(actual))


def _result(flight: Flight, status: int, actual: int) -> int:
    if flight.flushed and (status == statuses.CANCELLED or (status == statuses.COMPLETED and not actual)):
        return -ESHUTDOWN  # what a change of settings itself has killed looks like completed, with nothing
    return statuses.of_transfer(status)


def _isochronous(flight: Flight, slot: Slot, status: int) -> Completion:
    urb = flight.urb
    cancelled = status == statuses.CANCELLED
    gone = status == statuses.NO_DEVICE
    packets, pieces, at = [], [], 0
    view = memoryview(slot.buffer)
    for packet, (code, length, actual) in zip(urb.packets, slot.packets(), strict=False):
        result = -EXDEV if gone else statuses.of_packet(code, actual, cancelled=cancelled)
        packets.append(IsoPacket(packet.offset, packet.length, actual, result))
        if actual:
            pieces.append(view[at : at + actual])
        at += length
    errors = sum(packet.status != 0 for packet in packets)
    total = sum(packet.actual_length for packet in packets)
    result = _result(flight, status, total)
    data = b"".join(pieces) if urb.endpoint & DIR_IN else b""
    return Completion(result, total, data, 0, errors, packets)


def _packed(urb: Urb) -> bytearray:
    """Packets end to end, as libusb has them: USB/IP's may have gaps."""
    return bytearray(b"".join(bytes(urb.data[p.offset : p.offset + p.length]) for p in urb.packets))


def nothing(urb: Urb, status: int) -> Completion:
    """Of a URB that the device has not seen."""
    return Completion(status, packets=[IsoPacket(p.offset, p.length, 0, -EXDEV) for p in urb.packets])
