"""URBs that must not reach libusb: usbfs would claim for them what is not ours, or refuse them in a way of its own."""

from __future__ import annotations

from usbip_capture.devices.libusb.claims import Claims
from usbip_capture.devices.libusb.slots import MAX_CONTROL
from usbip_capture.usb.endpoints import Endpoint, EndpointMap
from usbip_capture.usb.setup import RECIPIENT_DEVICE, RECIPIENT_ENDPOINT, RECIPIENT_INTERFACE
from usbip_capture.usb.status import EINVAL, ENOENT, EPERM
from usbip_capture.usb.urb import DIR_IN, TransferType, Urb

_TYPE, _VENDOR, _RECIPIENT = 0x60, 0x40, 0x1F


def refusal(urb: Urb, endpoint: Endpoint | None, claims: Claims) -> int | None:
    """The status that a URB ends with; None if it may go to the device. endpoint: its own, as it is now."""
    if endpoint is None or endpoint.transfer_type != urb.transfer_type:
        return -ENOENT
    if endpoint.bInterfaceNumber not in claims.claimed:
        return -EPERM
    if urb.transfer_type != TransferType.ISOCHRONOUS:
        return None if urb.endpoint & DIR_IN or len(urb.data) == urb.length else -EINVAL
    fits = all(p.offset + p.length <= urb.length for p in urb.packets)
    return None if urb.packets and fits else -EINVAL


def control_refusal(urb: Urb, endpoints: EndpointMap, claims: Claims) -> int | None:
    """The same for one on endpoint 0."""
    setup = urb.setup
    if setup[6] | setup[7] << 8 != urb.length or urb.length > MAX_CONTROL:
        return -EINVAL
    recipient = setup[0] & _RECIPIENT
    # What a vendor has in wIndex is its own, and usbfs asks for no claim.
    if recipient == RECIPIENT_DEVICE or setup[0] & _TYPE == _VENDOR:
        return None
    if recipient == RECIPIENT_INTERFACE:
        return -EPERM if setup[4] in claims.unclaimed else None
    if recipient == RECIPIENT_ENDPOINT:
        endpoint = endpoints.find(setup[4] & 0x8F)
        if endpoint is not None and endpoint.bInterfaceNumber in claims.unclaimed:
            return -EPERM
    return None
