"""URBs that must not reach libusb: usbfs would claim for them what is not ours, or refuse them in a way of its own."""

from __future__ import annotations

from usbip_capture.devices.libusb.claims import Claims
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.setup import RECIPIENT_ENDPOINT, RECIPIENT_INTERFACE, Setup
from usbip_capture.usb.status import EINVAL, ENOENT, EPERM
from usbip_capture.usb.urb import DIR_IN, TransferType, Urb

#: Bytes of a control transfer's data stage that libusb takes.
MAX_CONTROL = 4096
_TYPE, _VENDOR, _RECIPIENT = 0x60, 0x40, 0x1F


def refusal(urb: Urb, endpoints: EndpointMap, claims: Claims) -> int | None:
    """The status that a URB ends with; None if it may go to the device."""
    if urb.transfer_type == TransferType.CONTROL:
        return _control(urb, endpoints, claims)
    endpoint = endpoints.find(urb.endpoint)
    if endpoint is None or endpoint.transfer_type != urb.transfer_type:
        return -ENOENT
    if endpoint.bInterfaceNumber not in claims.claimed:
        return -EPERM
    if urb.transfer_type != TransferType.ISOCHRONOUS:
        return None if urb.endpoint & DIR_IN or len(urb.data) == urb.length else -EINVAL
    fits = all(p.offset + p.length <= urb.length for p in urb.packets)
    return None if urb.packets and fits else -EINVAL


def _control(urb: Urb, endpoints: EndpointMap, claims: Claims) -> int | None:
    setup = Setup.unpack(urb.setup)
    if setup.wLength != urb.length or urb.length > MAX_CONTROL:
        return -EINVAL
    if setup.bmRequestType & _TYPE == _VENDOR:  # what is in wIndex is the vendor's, and usbfs asks for no claim
        return None
    recipient = setup.bmRequestType & _RECIPIENT
    if recipient == RECIPIENT_INTERFACE:
        return -EPERM if setup.wIndex & 0xFF in claims.unclaimed else None
    if recipient == RECIPIENT_ENDPOINT:
        endpoint = endpoints.find(setup.wIndex & 0x8F)
        if endpoint is not None and endpoint.bInterfaceNumber in claims.unclaimed:
            return -EPERM
    return None
