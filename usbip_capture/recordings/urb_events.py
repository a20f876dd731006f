"""Events of URBs from the packets of the link types that carry them: submits, and what came of them. Pure.

Ref: https://www.tcpdump.org/linktypes/LINKTYPE_USB_LINUX.html and LINKTYPE_USB_LINUX_MMAPPED.html;
https://desowin.org/usbpcap/captureformat.html; USBPcap, USBPcapDriver/include/USBPcap.h
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, TypeAlias

from usbip_capture.recordings.link_types import USB_LINUX, USB_LINUX_MMAPPED, USBPCAP
from usbip_capture.usb import status as statuses
from usbip_capture.usb.urb import DIR_IN, NO_SETUP, TransferType

#: Stages of a URB. A LATE one counts only if the URB is still out: older USBPcap records some completions twice.
SUBMIT: Final = 0
COMPLETE: Final = 1
LATE_COMPLETE: Final = 2
#: Length of an event that does not have it: what was asked for is what was moved.
AS_REQUESTED = -1

#: stage, URB id, endpoint (see `endpoint_key`), status, bytes asked for or moved, setup, failed isochronous packets,
#: where in the packet its data begins.
Event: TypeAlias = "tuple[int, int, int, int, int, bytes, bool, int]"
#: From where a packet begins and ends in a portion of a capture.
Decode: TypeAlias = "Callable[[bytes, int, int], Event | None]"

_SUBMITTED = ord("S")
_COMPLETED = ord("C")
_REFUSED = ord("E")
_ISOCHRONOUS = int(TransferType.ISOCHRONOUS)
_CONTROL = int(TransferType.CONTROL)
# The bits in between mean nothing.
_ENDPOINT = DIR_IN | 0x0F


def endpoint_key(busnum: int, devnum: int, transfer_type: int, epnum: int) -> int:
    """One number for an endpoint of a device on a bus; `split_key` is its inverse."""
    return busnum << 32 | devnum << 16 | transfer_type << 8 | epnum & _ENDPOINT


def split_key(key: int) -> tuple[int, int, int, int]:
    """busnum, devnum, transfer type, bEndpointAddress."""
    return key >> 32, key >> 16 & 0xFFFF, key >> 8 & 0xFF, key & 0xFF


def decoder(link_type: int, order: str) -> Decode | None:
    """What makes events of the packets of a link type; None if it has none.

    order: byte order of the capture, which usbmon's headers follow. The decoder gives None for a packet that is too
    short, and for one that is not about a URB.
    """
    if link_type == USB_LINUX_MMAPPED:
        return _usbmon(order, has_descriptors=True)
    if link_type == USB_LINUX:
        return _usbmon(order, has_descriptors=False)
    return _usbpcap if link_type == USBPCAP else None


# id, type, xfer_type, epnum, devnum, busnum, (flags, time,) status, length, (len_cap,) setup
_USBMON = "QBBBBH14xiI4x8s"


def _usbmon(order: str, *, has_descriptors: bool) -> Decode:
    header = Struct(order + _USBMON)
    unpack, plain_size = header.unpack_from, header.size
    size = plain_size + 16 if has_descriptors else plain_size
    descriptor = Struct(order + "i12x")
    (count_at, count) = (size - 4, Struct(order + "I").unpack_from)

    def decode(portion: bytes, start: int, end: int) -> Event | None:
        if end - start < size:
            return None
        urb_id, kind, transfer_type, epnum, devnum, busnum, status, length, setup = unpack(portion, start)
        key = busnum << 32 | devnum << 16 | transfer_type << 8 | epnum & _ENDPOINT
        if kind == _SUBMITTED:
            many = 16 * count(portion, start + count_at)[0] if has_descriptors and transfer_type == _ISOCHRONOUS else 0
            return SUBMIT, urb_id, key, status, length, setup, False, size + many
        failed, data_at = False, size
        if transfer_type == _ISOCHRONOUS and has_descriptors:
            data_at += 16 * count(portion, start + count_at)[0]
            whole = (min(data_at, end - start) - size) // 16 * 16
            descriptors = portion[start + size : start + size + whole]
            failed = any(s for (s,) in descriptor.iter_unpack(descriptors))
        if kind == _COMPLETED:
            return COMPLETE, urb_id, key, status, length, NO_SETUP, failed, data_at
        return (COMPLETE, urb_id, key, status, 0, NO_SETUP, False, size) if kind == _REFUSED else None

    return decode


# headerLen, irpId, status, function, info, bus, device, endpoint, transfer, dataLength
_USBPCAP = Struct("<HQIHBHHBBI")
_FROM_DEVICE = 1
_STAGE_AT = _USBPCAP.size
_SETUP_STAGE, _DATA_STAGE, _STATUS_STAGE, _COMPLETE_STAGE = range(4)
_ERROR_COUNT_AT = _USBPCAP.size + 8
_ERROR_COUNT = Struct("<I").unpack_from

# USBD_STATUS -> what Linux calls it. Ref: Windows Driver Kit, usb.h
_USBD = {
    0x00000000: 0,
    0xC0000001: -statuses.EILSEQ,  # CRC
    0xC0000002: -statuses.EPROTO,  # bit stuffing
    0xC0000003: -statuses.EILSEQ,  # data toggle
    0xC0000004: -statuses.EPIPE,  # stall
    0xC0000005: -statuses.ETIME,  # no response
    0xC0000006: -statuses.EPROTO,  # PID check
    0xC0000007: -statuses.EPROTO,  # unexpected PID
    0xC0000008: -statuses.EOVERFLOW,  # data overrun
    0xC0000009: -statuses.EREMOTEIO,  # data underrun
    0xC0000011: -statuses.EPROTO,  # transaction error
    0xC0000012: -statuses.EOVERFLOW,  # babble
    0xC0000030: -statuses.EPIPE,  # endpoint halted
    0xC0006000: -statuses.ETIMEDOUT,
    0xC0007000: -statuses.ENODEV,  # device gone
    0xC0010000: -statuses.ENOENT,  # cancelled
}


def _usbpcap(portion: bytes, start: int, end: int) -> Event | None:
    packet = portion[start:end]
    if len(packet) < _USBPCAP.size:
        return None
    data_at, urb_id, usbd, _, info, bus, device, epnum, transfer_type, length = _USBPCAP.unpack_from(packet)
    if transfer_type > max(TransferType):
        return None  # something between drivers
    status = _USBD.get(usbd, -statuses.EIO)
    key = endpoint_key(bus, device, transfer_type, epnum)
    back = info & _FROM_DEVICE
    if transfer_type == _CONTROL:
        return _usbpcap_control(packet, urb_id, key, status, length, data_at, bool(back))
    if not back:
        return SUBMIT, urb_id, key, status, length, NO_SETUP, False, data_at
    failed = False
    if transfer_type == _ISOCHRONOUS and len(packet) >= _ERROR_COUNT_AT + 4:
        failed = _ERROR_COUNT(packet, _ERROR_COUNT_AT)[0] > 0
    moved = length if epnum & DIR_IN else AS_REQUESTED
    return COMPLETE, urb_id, key, status, moved, NO_SETUP, failed, data_at


def _usbpcap_control(
    packet: bytes, urb_id: int, key: int, status: int, length: int, data_at: int, back: bool
) -> Event | None:
    """In old captures each stage is a packet, in others there are the first and the end."""
    stage = packet[_STAGE_AT] if len(packet) > _STAGE_AT else _COMPLETE_STAGE
    key &= ~DIR_IN
    if stage == _SETUP_STAGE and not back:
        setup = packet[data_at : data_at + 8]
        if len(setup) < 8:
            return None
        wanted = setup[6] | setup[7] << 8
        inward = DIR_IN if setup[0] & DIR_IN and wanted else 0
        return SUBMIT, urb_id, key | inward, status, wanted, setup, False, data_at + 8
    if not back:
        return None  # data on its way out, which the setup announced
    if stage == _STATUS_STAGE:
        return LATE_COMPLETE, urb_id, key, status, AS_REQUESTED, NO_SETUP, False, data_at
    # Whether it is inward only the submit knows: `length` is 0 for the others.
    return COMPLETE, urb_id, key, status, length or AS_REQUESTED, NO_SETUP, False, data_at


def control_data(packet: bytes) -> tuple[int, int, int] | None:
    """URB id, endpoint and where the data begins of a packet of USBPcap that is the data stage of what is sent."""
    if len(packet) <= _STAGE_AT or packet[_STAGE_AT] != _DATA_STAGE:
        return None
    data_at, urb_id, _, _, info, bus, device, epnum, transfer_type, _ = _USBPCAP.unpack_from(packet)
    if transfer_type != _CONTROL or info & _FROM_DEVICE:
        return None
    return urb_id, endpoint_key(bus, device, transfer_type, epnum & ~DIR_IN), data_at
