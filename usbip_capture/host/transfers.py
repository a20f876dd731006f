"""Bulk, interrupt and isochronous transfers of any length: cut into URBs that the server takes."""

from __future__ import annotations

import time
from array import array

from usbip_capture.device import Transfer, after_unlink
from usbip_capture.errors import RequestRefused
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.usb.endpoints import Endpoint
from usbip_capture.usb.status import EINVAL, TIMED_OUT, TOO_LARGE, UNLINKED
from usbip_capture.usb.urb import (
    DIR_IN,
    FLAG_DIR_IN,
    ISO_ASAP,
    NO_SETUP,
    Buffer,
    Completion,
    IsoPacket,
    TransferType,
    Urb,
)

_ISO = TransferType.ISOCHRONOUS
#: How URBs end whose time is over, by us or by the server.
_OUT_OF_TIME = UNLINKED | TIMED_OUT
#: Packets of one isochronous URB, and URBs of one transfer that are in flight together.
_ISO_PACKETS = 512
_ISO_IN_FLIGHT = 16


def read(handle: DeviceHandle, endpoint: Endpoint, buffer: array[int] | bytearray, timeout: float | None) -> int:
    """Fill `buffer` from an IN endpoint: bytes received, packed together if isochronous.

    One time-out, in seconds, for the whole; when it ends a transfer of which a part has come, that part counts.
    Raises DeviceError.
    """
    view = memoryview(buffer)
    if view.itemsize != 1:
        view = view.cast("B")
    address = endpoint.address
    if not address & DIR_IN:
        raise RequestRefused(f"endpoint {address:#04x} is an OUT endpoint, nothing can be read from it", -EINVAL)
    if endpoint.transfer_type == _ISO:
        return _isochronous(handle, endpoint, view, timeout)
    size = len(view)
    if size <= handle.max_transfer:
        # As `in_urb`, and below `out_urb`, without their calls.
        urb = Urb(endpoint.transfer_type, address, size, b"", NO_SETUP, FLAG_DIR_IN, endpoint.interval)
        completion = handle.run(urb, timeout, view)
        if not completion.status:
            return place(view, completion)
        if completion.status not in TOO_LARGE:
            raise handle.failed(completion.status, timeout, address)
        lower_limit(handle, endpoint, size, completion.status)
    return _in_pieces(handle, endpoint, view, timeout)


def write(handle: DeviceHandle, endpoint: Endpoint, data: Buffer | array[int], timeout: float | None) -> int:
    """Send `data` to an OUT endpoint: bytes sent; see `read`."""
    view = memoryview(data)
    if view.itemsize != 1:
        view = view.cast("B")
    address = endpoint.address
    if address & DIR_IN:
        raise RequestRefused(f"endpoint {address:#04x} is an IN endpoint, nothing can be written to it", -EINVAL)
    if endpoint.transfer_type == _ISO:
        return _isochronous(handle, endpoint, view, timeout)
    size = len(view)
    if size <= handle.max_transfer:
        urb = Urb(endpoint.transfer_type, address, size, view, NO_SETUP, 0, endpoint.interval)
        status = handle.run(urb, timeout).status
        if not status:
            return size  # an OUT transfer that succeeds is never short, whatever a bridge reports
        if status not in TOO_LARGE:
            raise handle.failed(status, timeout, address)
        lower_limit(handle, endpoint, size, status)
    return _in_pieces(handle, endpoint, view, timeout)


def in_urb(endpoint: Endpoint, size: int) -> Urb:
    """An IN request of `size` bytes, isochronous ones cut into packets."""
    kind = endpoint.transfer_type
    packets = iso_packets(endpoint, size) if kind == _ISO else ()
    flags = FLAG_DIR_IN | (ISO_ASAP if packets else 0)
    return Urb(kind, endpoint.address | DIR_IN, size, flags=flags, interval=endpoint.interval, packets=packets)


def out_urb(endpoint: Endpoint, data: memoryview | bytes) -> Urb:
    """An OUT request, isochronous ones cut into packets."""
    kind = endpoint.transfer_type
    packets = iso_packets(endpoint, len(data)) if kind == _ISO else ()
    flags = ISO_ASAP if packets else 0
    return Urb(kind, endpoint.address, len(data), data, flags=flags, interval=endpoint.interval, packets=packets)


def iso_packets(endpoint: Endpoint, size: int) -> list[IsoPacket]:
    """`size` bytes laid out in packets of the endpoint's full size, the last one as short as needed."""
    step = max(endpoint.packet_size, 1)
    return [IsoPacket(offset, min(step, size - offset)) for offset in range(0, size, step)]


def place(view: memoryview, completion: Completion) -> int:
    """Have the data of an IN transfer at the start of `view`, where it may be already: its length."""
    data = completion.data
    size = len(data)
    if not (isinstance(data, memoryview) and data.obj is view.obj):
        view[:size] = data
    return size


def lower_limit(handle: DeviceHandle, endpoint: Endpoint, size: int, status: int) -> None:
    """The server does not take `size` bytes: try with half from now on. Raises DeviceError when that is too little."""
    half = 1 << (size - 1).bit_length() - 1
    if half < max(endpoint.packet_size, 1) or size <= 1:
        raise handle.failed(status, None, endpoint.address)
    handle.max_transfer = min(handle.max_transfer, half)


def _in_pieces(handle: DeviceHandle, endpoint: Endpoint, view: memoryview, timeout: float | None) -> int:
    """One URB after the other, each of whole packets; a short one ends an IN transfer."""
    inward = endpoint.address & DIR_IN
    deadline = None if timeout is None else time.monotonic() + timeout
    moved = 0
    while moved < len(view):
        packet = max(endpoint.packet_size, 1)
        size = max(handle.max_transfer // packet, 1) * packet
        piece = view[moved : moved + size]
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        urb = in_urb(endpoint, len(piece)) if inward else out_urb(endpoint, piece)
        completion = handle.run(urb, left, piece if inward else None)
        if completion.status in TOO_LARGE:
            lower_limit(handle, endpoint, len(piece), completion.status)
        elif completion.status in _OUT_OF_TIME and moved:
            break
        elif completion.status:
            raise handle.failed(completion.status, timeout, endpoint.address)
        else:
            got = place(piece, completion) if inward else len(piece)
            moved += got
            if got < len(piece):
                break
    return moved


def _isochronous(handle: DeviceHandle, endpoint: Endpoint, view: memoryview, timeout: float | None) -> int:
    """Several URBs in flight, so that no frame is missed between them."""
    inward = endpoint.address & DIR_IN
    deadline = None if timeout is None else time.monotonic() + timeout
    step = max(endpoint.packet_size, 1) * _ISO_PACKETS
    pieces = [view[at : at + step] for at in range(0, len(view), step)]
    device = handle.present()
    waiting: list[Transfer] = []
    moved, failure = 0, 0
    try:
        while (pieces or waiting) and not failure:
            while pieces and len(waiting) < _ISO_IN_FLIGHT:
                piece = pieces.pop(0)
                waiting.append(Transfer(in_urb(endpoint, len(piece)) if inward else out_urb(endpoint, piece)))
                device.submit(waiting[-1])
            transfer = waiting[0]
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if device.wait(transfer, left):
                completion = transfer.completion
            else:
                device.unlink([transfer], handle.grace)
                completion = after_unlink(transfer)
            assert completion is not None
            del waiting[0]
            failure = completion.status
            if not failure:
                moved += place(view[moved:], completion) if inward else completion.actual_length
    finally:
        device.unlink(waiting, 0.0)
    if failure and not (moved and failure in _OUT_OF_TIME):
        raise handle.failed(failure, timeout, endpoint.address)
    return moved
