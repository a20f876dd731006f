"""What a USB/IP server exports; apart from devices themselves, so that who only looks at the list imports little.

Ref: Linux Documentation/usb/usbip_protocol.rst, OP_REQ_DEVLIST
"""

from __future__ import annotations

import socket

from usbip_capture.net.connecting import exchange
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.wire.operations import DevlistExchange


def list_devices(sock: socket.socket, where: str, timeout: float) -> list[DeviceInfo]:
    """What the server exports; `sock` is used up. Raises UsbipError, its sentence naming `where`."""
    request = DevlistExchange()
    with sock:
        exchange(sock, request, where, timeout)
    return request.devices
