"""What a device sends while it has nothing to send, for as long as it is read: more than a recording has of it.

Ref: FTDI AN232B-04, latency timer; Linux drivers/usb/serial/ftdi_sio.h, modem and line status
"""

from __future__ import annotations

from collections.abc import Sequence

from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.descriptors import RecordedDescriptors
from usbip_capture.recorded.exchanges import indexed
from usbip_capture.usb.descriptors import DeviceDescriptor
from usbip_capture.usb.urb import TransferType

_FTDI = 0x0403
#: Transfers at the end of a recording among which there is one without data.
_LATEST = 4096
_STATUS = 2  # bytes before the data of each packet, alone if there is none


def idle_of(exchanges: Sequence[Exchange], known: RecordedDescriptors) -> dict[int, bytes]:
    """By endpoint address; of an adapter of FTDI its status as it was last, nothing of other devices."""
    if DeviceDescriptor.parse(known.device).idVendor != _FTDI:
        return {}
    whole = indexed(exchanges)
    found: dict[int, bytes] = {}
    for address, endpoint in whole.endpoints.items():
        answers = endpoint.answers
        if endpoint.transfer_type != TransferType.BULK or answers is None:
            continue
        for at in range(len(answers) - 1, max(len(answers) - _LATEST, 0) - 1, -1):
            data = whole.at(answers[at][1]).data
            if len(data) == _STATUS:
                found[address] = data
                break
    return found
