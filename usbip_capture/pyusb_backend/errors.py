"""URB status to what PyUSB users catch: the numbers and classes of its libusb backend.

Ref: PyUSB 1.3 usb/backend/libusb1.py, _libusb_errno and _strerror; libusb.h, enum libusb_error
"""

from __future__ import annotations

import errno
from typing import NoReturn

from usb.core import USBError, USBTimeoutError

from usbip_capture.usb import status as st

# Ours: Linux status -> (libusb's code, this platform's errno, libusb's words)
_IO = (-1, errno.EIO, "Input/Output Error")
_NO_DEVICE = (-4, errno.ENODEV, "No such device (it may have been disconnected)")
_TIMEOUT = (-7, errno.ETIMEDOUT, "Operation timed out")
_ERRORS = {
    -st.EPIPE: (-9, errno.EPIPE, "Pipe error"),
    -st.EOVERFLOW: (-8, errno.EOVERFLOW, "Overflow"),
    -st.EINVAL: (-2, errno.EINVAL, "Invalid parameter"),
    -st.EBUSY: (-6, errno.EBUSY, "Resource busy"),
    **dict.fromkeys(st.GONE, _NO_DEVICE),
    **dict.fromkeys(st.TIMED_OUT, _TIMEOUT),
    **dict.fromkeys(st.UNLINKED, _TIMEOUT),
}


def raise_usb_error(status: int, what: str) -> NoReturn:
    """Raise what libusb's backend raises for a URB that ended with `status`; `what` names device and endpoint."""
    code, number, words = _ERRORS.get(status, _IO)
    text = f"{words}: {what}: {st.status_name(status)}"
    if number == errno.ETIMEDOUT:
        raise USBTimeoutError(text, code, number)
    raise USBError(text, code, number)


def not_found(what: str) -> USBError:
    """The error for an endpoint, interface or configuration that the device does not have."""
    return USBError(f"Entity not found: {what}", -5, errno.ENOENT)


def invalid(what: str) -> USBError:
    """The error for a call that makes no sense."""
    return USBError(f"Invalid parameter: {what}", -2, errno.EINVAL)


def unreachable(error: Exception, *, busy: bool = False) -> USBError:
    """The error for a server that is not there, or a device that it does not hand over: `error`'s sentence."""
    code, number = (-6, errno.EBUSY) if busy else (-4, errno.ENODEV)
    return USBError(str(error), code, number)
