"""The serial number, and other strings, of a device that is imported already."""

from __future__ import annotations

from usbip_capture.device import Device
from usbip_capture.usb.setup import DT_DEVICE, DT_STRING, get_descriptor
from usbip_capture.usb.strings import parse_langids, parse_string
from usbip_capture.usb.urb import Urb

#: Some devices do not answer longer requests for strings.
_LENGTH = 255
_TIMEOUT = 1.0
#: Of iSerialNumber in the device descriptor. Ref: USB 2.0, table 9-8
_OFFSET = 16


def read_serial_number(device: Device) -> str:
    """In the device's first language; empty if it has none, or does not answer within a second for each request."""
    descriptor = _read(device, DT_DEVICE, 0, 0, 18)
    if len(descriptor) <= _OFFSET or not descriptor[_OFFSET]:
        return ""
    return read_string(device, descriptor[_OFFSET])


def read_string(device: Device, index: int) -> str:
    """In the device's first language; empty if it has none, or does not answer within a second for each request."""
    languages = parse_langids(_read(device, DT_STRING, 0, 0, _LENGTH)) if index else ()
    return parse_string(_read(device, DT_STRING, index, languages[0], _LENGTH)) if languages else ""


def _read(device: Device, kind: int, index: int, language: int, length: int) -> bytes:
    completion = device.run(Urb.control(get_descriptor(kind, index, language, length).pack()), _TIMEOUT)
    return b"" if completion.status else bytes(completion.data)
