"""Our errors as PyUSB users catch them: the numbers, classes and words of its libusb backend.

Ref: PyUSB 1.3 usb/backend/libusb1.py, _libusb_errno and _strerror; libusb.h, enum libusb_error
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from usb.core import USBError, USBTimeoutError

from usbip_capture.errors import DeviceError, DeviceGone, ImportRefused, TransferTimeout, UsbipError
from usbip_capture.usb import status as st

P = ParamSpec("P")
T = TypeVar("T")

# libusb's code, this platform's errno, libusb's words
_IO = (-1, errno.EIO, "Input/Output Error")
_INVALID = (-2, errno.EINVAL, "Invalid parameter")
_ACCESS = (-3, errno.EACCES, "Access denied (insufficient permissions)")
_NO_DEVICE = (-4, errno.ENODEV, "No such device (it may have been disconnected)")
_RELEASED = (-4, errno.ENODEV, "No such device")
_NOT_FOUND = (-5, errno.ENOENT, "Entity not found")
_BUSY = (-6, errno.EBUSY, "Resource busy")
_TIMEOUT = (-7, errno.ETIMEDOUT, "Operation timed out")
_OVERFLOW = (-8, errno.EOVERFLOW, "Overflow")
_PIPE = (-9, errno.EPIPE, "Pipe error")
_NO_MEMORY = (-11, errno.ENOMEM, "Insufficient memory")

# Linux status -> the above
_ERRORS = {
    -st.EPIPE: _PIPE,
    -st.EOVERFLOW: _OVERFLOW,
    -st.EINVAL: _INVALID,
    -st.EBUSY: _BUSY,
    -st.ENOENT: _NOT_FOUND,
    -st.EACCES: _ACCESS,
    -st.ENOMEM: _NO_MEMORY,
    **dict.fromkeys(st.GONE, _NO_DEVICE),
    **dict.fromkeys(st.TIMED_OUT, _TIMEOUT),
    **dict.fromkeys(st.TOO_LARGE, _INVALID),
}


class DescriptorError(USBError):
    """A device whose descriptors make no sense to PyUSB."""


@contextmanager
def sensible(device: object) -> Iterator[None]:
    """PyUSB raises ValueError, IndexError and KeyError too, when descriptors make no sense: DescriptorError instead."""
    try:
        yield
    except UsbipError:  # some of which are ValueErrors
        raise
    except (ValueError, LookupError) as error:
        code, number, _ = _INVALID
        raise DescriptorError(f"the descriptors of device {device} make no sense: {error}", code, number) from error


def usb_error(error: UsbipError) -> Exception:
    """What libusb's backend raises where we raise `error`.

    NotImplementedError for what the server cannot do at all, such as isochronous transfers on most bridges.
    """
    if isinstance(error, DeviceError) and error.status == -st.EOPNOTSUPP:
        return NotImplementedError(f"Operation not supported or unimplemented on this server: {error}")
    kind = _kind(error)
    code, number, words = kind
    cls = USBTimeoutError if kind is _TIMEOUT else USBError
    return cls(f"{words}: {error}", code, number)


def invalid(what: str) -> USBError:
    """The error for a call that makes no sense."""
    code, number, words = _INVALID
    return USBError(f"{words}: {what}", code, number)


def as_usb_errors(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, raising PyUSB's errors in place of ours."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except UsbipError as error:
            raise usb_error(error) from error

    return call


def _kind(error: UsbipError) -> tuple[int, int, str]:
    if isinstance(error, TransferTimeout):
        return _TIMEOUT
    if isinstance(error, DeviceGone):
        return _RELEASED if error.released else _NO_DEVICE
    if isinstance(error, DeviceError):
        return _ERRORS.get(error.status, _IO)
    # A server that is not there, or a device that it refuses to export.
    return _BUSY if isinstance(error, ImportRefused) else _NO_DEVICE
