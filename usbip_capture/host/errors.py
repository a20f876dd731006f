"""URB status to what PyUSB users catch: the numbers and classes of its libusb backend.

Ref: PyUSB 1.3 usb/backend/libusb1.py, _libusb_errno and _strerror; libusb.h, enum libusb_error
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from usb.core import USBError, USBTimeoutError

from usbip_capture.errors import UsbipError
from usbip_capture.usb import status as st

# libusb's code, this platform's errno, libusb's words
_IO = (-1, errno.EIO, "Input/Output Error")
_INVALID = (-2, errno.EINVAL, "Invalid parameter")
_ACCESS = (-3, errno.EACCES, "Access denied (insufficient permissions)")
_NO_DEVICE = (-4, errno.ENODEV, "No such device (it may have been disconnected)")
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


def usb_error(status: int, what: str, cause: str = "") -> Exception:
    """What libusb's backend raises for a URB that ended with `status`; `what` names device and endpoint.

    cause: better than the status says it.

    NotImplementedError for what the server cannot do at all, such as isochronous transfers on most bridges.
    """
    if status == -st.EOPNOTSUPP:
        return NotImplementedError(f"Operation not supported or unimplemented on this server: {what}")
    kind = _ERRORS.get(status, _IO)
    return _error(kind, f"{what}: {cause or st.status_name(status)}")


def timed_out(timeout: float | None, what: str) -> USBError:
    """The error for a transfer that was taken back after `timeout` seconds."""
    after = "" if timeout is None else f" within {timeout * 1000:g} ms"
    return _error(_TIMEOUT, f"{what}: no answer{after}")


def not_found(what: str) -> USBError:
    """The error for an endpoint, interface or configuration that the device does not have."""
    return _error(_NOT_FOUND, what)


def invalid(what: str) -> USBError:
    """The error for a call that makes no sense."""
    return _error(_INVALID, what)


def busy(what: str) -> USBError:
    """The error for an interface that somebody else has claimed."""
    return _error(_BUSY, what)


def no_device(what: str) -> USBError:
    """The error for a device that is gone."""
    return _error(_NO_DEVICE, what)


def released(what: str) -> USBError:
    """The error for a device that this program itself has released."""
    code, number, _ = _NO_DEVICE
    return USBError(f"No such device: {what}", code, number)


def unreachable(error: Exception, *, in_use: bool = False) -> USBError:
    """The error for a server that is not there, or a device that it does not hand over: `error`'s sentence."""
    return _error(_BUSY if in_use else _NO_DEVICE, str(error))


def is_gone(error: USBError) -> bool:
    """Whether `error` says that the device is not there any more."""
    return error.backend_error_code == _NO_DEVICE[0]


def _error(kind: tuple[int, int, str], what: str) -> USBError:
    code, number, words = kind
    cls = USBTimeoutError if kind is _TIMEOUT else USBError
    return cls(f"{words}: {what}", code, number)
