"""The strings of an imported device."""

from __future__ import annotations

from usbip_capture.errors import DeviceError
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.usb.setup import DT_STRING, get_descriptor
from usbip_capture.usb.strings import parse_langids, parse_string

#: Some devices do not answer longer requests for strings.
_LENGTH = 255
_TIMEOUT = 1.0


def read_string(handle: DeviceHandle, index: int) -> str:
    """A string in the device's first language; empty if it has none. Raises DeviceError once the device is gone."""
    if not index:
        return ""
    try:
        languages = parse_langids(handle.control(get_descriptor(DT_STRING, 0, 0, _LENGTH), timeout=_TIMEOUT))
        if not languages:
            return ""
        return parse_string(handle.control(get_descriptor(DT_STRING, index, languages[0], _LENGTH), timeout=_TIMEOUT))
    except DeviceError:
        if not handle.device.alive:
            raise
        return ""
