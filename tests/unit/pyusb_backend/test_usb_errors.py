"""Our errors as PyUSB users catch them: class, libusb's code, errno and words, each in one table."""

from __future__ import annotations

import errno

import pytest
import usb.core

from usbip_capture.errors import (
    DeviceError,
    DeviceGone,
    DeviceNotFound,
    ImportRefused,
    RequestRefused,
    ServerUnreachable,
    TransferFailed,
    TransferTimeout,
    UsbipError,
)
from usbip_capture.pyusb_backend.errors import as_usb_errors, usb_error
from usbip_capture.usb import status as st

NO_DEVICE = (-4, errno.ENODEV, "No such device (it may have been disconnected): what")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransferFailed("what", -st.EPIPE), (-9, errno.EPIPE, "Pipe error: what")),
        (TransferFailed("what", -st.EOVERFLOW), (-8, errno.EOVERFLOW, "Overflow: what")),
        (TransferFailed("what", -st.EPROTO), (-1, errno.EIO, "Input/Output Error: what")),
        (TransferFailed("what", -st.ECONNRESET), (-1, errno.EIO, "Input/Output Error: what")),
        (TransferFailed("what", -st.ENOMEM), (-11, errno.ENOMEM, "Insufficient memory: what")),
        (TransferFailed("what", -st.NEWLIB_EMSGSIZE), (-2, errno.EINVAL, "Invalid parameter: what")),
        (TransferFailed("what", 77), (-1, errno.EIO, "Input/Output Error: what")),
        (TransferTimeout("what", -st.ECONNRESET, 0x81, 0.1), (-7, errno.ETIMEDOUT, "Operation timed out: what")),
        (TransferTimeout("what", -st.ETIMEDOUT), (-7, errno.ETIMEDOUT, "Operation timed out: what")),
        (RequestRefused("what", -st.ENOENT), (-5, errno.ENOENT, "Entity not found: what")),
        (RequestRefused("what", -st.EINVAL), (-2, errno.EINVAL, "Invalid parameter: what")),
        (RequestRefused("what", -st.EBUSY), (-6, errno.EBUSY, "Resource busy: what")),
        (DeviceGone("what", -st.ESHUTDOWN), NO_DEVICE),
        (DeviceGone("what", -st.ENODEV, released=True), (-4, errno.ENODEV, "No such device: what")),
        (ImportRefused("what", 1), (-6, errno.EBUSY, "Resource busy: what")),
        (DeviceNotFound("what"), NO_DEVICE),
        (ServerUnreachable("what"), NO_DEVICE),
    ],
)
def test_what_a_pyusb_user_catches(error: UsbipError, expected: tuple[int, int, str]) -> None:
    found = usb_error(error)
    assert isinstance(found, usb.core.USBError)
    assert (found.backend_error_code, found.errno, found.strerror) == expected
    assert isinstance(found, usb.core.USBTimeoutError) == isinstance(error, TransferTimeout)


def test_what_a_server_cannot_do_at_all() -> None:
    assert isinstance(usb_error(TransferFailed("what", -st.EOPNOTSUPP)), NotImplementedError)


def test_a_call_keeps_its_result_and_the_cause_of_its_error() -> None:
    @as_usb_errors
    def call(error: DeviceError | None) -> int:
        if error is not None:
            raise error
        return 3

    assert call(None) == 3
    cause = RequestRefused("what", -st.EBUSY)
    with pytest.raises(usb.core.USBError) as caught:
        call(cause)
    assert caught.value.__cause__ is cause
