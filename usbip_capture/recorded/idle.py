"""What a device sends while it has nothing to send, for as long as it is read: more than a recording has of it.

Ref: FTDI AN232B-04, latency timer; Linux drivers/usb/serial/ftdi_sio.h, modem and line status
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.descriptors import RecordedDescriptors
from usbip_capture.usb.descriptors import DeviceDescriptor
from usbip_capture.usb.urb import DIR_IN, TransferType

_FTDI = 0x0403
_STATUS = 2  # bytes before the data of each packet, alone if there is none


def idle_of(exchanges: Sequence[Exchange], known: RecordedDescriptors) -> dict[int, bytes]:
    """By endpoint address; of an adapter of FTDI its status as it was last, nothing of other devices."""
    if DeviceDescriptor.parse(known.device).idVendor != _FTDI:
        return {}
    return {
        one.endpoint: one.data
        for one in exchanges
        if one.transfer_type == TransferType.BULK and one.endpoint & DIR_IN and len(one.data) == _STATUS
    }
