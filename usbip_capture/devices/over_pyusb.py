"""What a PyUSB backend reports, in our terms: its devices, its errors, its way to lay out isochronous packets."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from usb.backend import IBackend
from usb.core import USBError, USBTimeoutError

from usbip_capture.usb import status as st
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import IsoPacket

# PyUSB's numbers are libusb's, where high speed is 3 and SuperSpeed 4.
_SPEEDS = {1: Speed.LOW, 2: Speed.FULL, 3: Speed.HIGH, 4: Speed.SUPER, 5: Speed.SUPER_PLUS}
_STATUS = {
    errno.EPIPE: -st.EPIPE,
    errno.ENODEV: -st.ENODEV,
    errno.EOVERFLOW: -st.EOVERFLOW,
    errno.ENOENT: -st.ENOENT,
    errno.EBUSY: -st.EBUSY,
    errno.EINVAL: -st.EINVAL,
    errno.EIO: -st.EPROTO,
}


def status_of(error: BaseException) -> int:
    """The status of a URB that ended with `error`: a time-out, or Ctrl-C, is a URB that was unlinked."""
    if isinstance(error, USBTimeoutError) or (isinstance(error, USBError) and error.errno == errno.ETIMEDOUT):
        return -st.ECONNRESET
    if not isinstance(error, Exception):
        return -st.ECONNRESET
    if isinstance(error, NotImplementedError):
        return -st.EOPNOTSUPP
    number = error.errno if isinstance(error, USBError) else None
    return _STATUS.get(number or 0, -st.EPROTO)


def device_info(backend: IBackend, dev: Any) -> DeviceInfo:
    """What a server would list of a backend's device; its busid is that of Linux, as far as the backend reports it."""
    descriptor = backend.get_device_descriptor(dev)
    bus, address = descriptor.bus or 0, descriptor.address or 0
    ports = descriptor.port_numbers or (address,)
    return DeviceInfo(
        f"{bus}-{'.'.join(map(str, ports))}",
        bus,
        address,
        _SPEEDS.get(descriptor.speed or 0, Speed.UNKNOWN),
        descriptor.idVendor,
        descriptor.idProduct,
        descriptor.bcdDevice,
        descriptor.bDeviceClass,
        descriptor.bDeviceSubClass,
        descriptor.bDeviceProtocol,
        bNumConfigurations=descriptor.bNumConfigurations,
    )


def filled_packets(packets: Sequence[IsoPacket], moved: int) -> list[IsoPacket]:
    """PyUSB reports only how many bytes an isochronous transfer has moved: taken as packets filled one by one."""
    found = []
    for packet in packets:
        size = min(packet.length, moved)
        found.append(IsoPacket(packet.offset, packet.length, size, 0))
        moved -= size
    return found
