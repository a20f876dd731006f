"""What a USB/IP server exports; apart from devices themselves, so that who only looks at the list imports little.

Ref: Linux Documentation/usb/usbip_protocol.rst, OP_REQ_DEVLIST
"""

from __future__ import annotations

from contextlib import closing

from usbip_capture.net.connecting import exchange
from usbip_capture.net.transport import Transport
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.operations import DevlistExchange


def list_devices(transport: Transport, timeout: float) -> list[DeviceInfo]:
    """What the server exports; `transport` is used up. Raises UsbipError, its sentence naming the peer."""
    request = DevlistExchange()
    with closing(transport):
        exchange(transport, request, timeout)
    return request.devices
