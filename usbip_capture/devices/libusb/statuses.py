"""What libusb reports, as statuses of URBs: Linux errno numbers on each system, as that is what the wire carries.

Ref: libusb.h, enum libusb_error and enum libusb_transfer_status; Linux Documentation/driver-api/usb/error-codes.rst
"""

from __future__ import annotations

from usbip_capture.usb import status as st

COMPLETED, ERROR, TIMED_OUT, CANCELLED, STALL, NO_DEVICE, OVERFLOW = range(7)

#: libusb_transfer_status -> status of a URB. ERROR stands for -62, -84, -70 and all that libusb does not know, too.
OF_TRANSFER = (0, -st.EPROTO, -st.ETIMEDOUT, -st.ECONNRESET, -st.EPIPE, -st.ESHUTDOWN, -st.EOVERFLOW)

(
    ERROR_IO,
    ERROR_INVALID_PARAM,
    ERROR_ACCESS,
    ERROR_NO_DEVICE,
    ERROR_NOT_FOUND,
    ERROR_BUSY,
    ERROR_TIMEOUT,
    ERROR_OVERFLOW,
    ERROR_PIPE,
    ERROR_INTERRUPTED,
    ERROR_NO_MEM,
    ERROR_NOT_SUPPORTED,
) = range(-1, -13, -1)

_OF_ERROR = {
    ERROR_IO: -st.EIO,
    ERROR_INVALID_PARAM: -st.EINVAL,
    ERROR_ACCESS: -st.EACCES,
    ERROR_NO_DEVICE: -st.ESHUTDOWN,
    ERROR_NOT_FOUND: -st.ENOENT,
    ERROR_BUSY: -st.EBUSY,
    ERROR_TIMEOUT: -st.ETIMEDOUT,
    ERROR_OVERFLOW: -st.EOVERFLOW,
    ERROR_PIPE: -st.EPIPE,
    ERROR_NO_MEM: -st.ENOMEM,
    ERROR_NOT_SUPPORTED: -st.EOPNOTSUPP,
}


_WORDS = {
    ERROR_IO: "input/output error",
    ERROR_INVALID_PARAM: "invalid parameter",
    ERROR_ACCESS: "no permission",
    ERROR_NO_DEVICE: "it has been unplugged",
    ERROR_NOT_FOUND: "not found",
    ERROR_BUSY: "it is in use",
    ERROR_TIMEOUT: "timed out",
    ERROR_OVERFLOW: "overflow",
    ERROR_PIPE: "stalled",
    ERROR_INTERRUPTED: "interrupted",
    ERROR_NO_MEM: "out of memory",
    ERROR_NOT_SUPPORTED: "not supported on this system",
}


def words_of(code: int) -> str:
    """A libusb_error for a person."""
    return _WORDS.get(code, f"unknown error {code} of libusb")


def of_transfer(status: int) -> int:
    """The status of a URB whose transfer ended with this libusb_transfer_status."""
    return OF_TRANSFER[status] if 0 <= status < len(OF_TRANSFER) else -st.EPROTO


def of_error(code: int) -> int:
    """The status of a URB that libusb refused with this libusb_error."""
    return _OF_ERROR.get(code, -st.EPROTO)


def of_packet(status: int, actual_length: int, *, cancelled: bool) -> int:
    """The status of an isochronous packet, whose URB was `cancelled` or not."""
    if not cancelled:
        return of_transfer(status)
    return 0 if status == COMPLETED and actual_length else -st.EXDEV


class Failure(Exception):
    """libusb refused. `status`: as a URB has it; `code`: libusb_error."""

    def __init__(self, code: int) -> None:
        super().__init__(words_of(code))
        self.code = code
        self.status = of_error(code)
