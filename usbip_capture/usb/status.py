"""URB status numbers: Linux errno on every platform, because that is what the wire carries.

Ref: Linux Documentation/driver-api/usb/error-codes.rst; include/uapi/asm-generic/errno.h
"""

from __future__ import annotations

EPERM = 1
ENOENT = 2
EIO = 5
ENOMEM = 12
EACCES = 13
EBUSY = 16
EXDEV = 18
ENODEV = 19
EINVAL = 22
EPIPE = 32
ETIME = 62
EPROTO = 71
EOVERFLOW = 75
EILSEQ = 84
EMSGSIZE = 90
EOPNOTSUPP = 95
ECONNRESET = 104
ESHUTDOWN = 108
ETIMEDOUT = 110
EINPROGRESS = 115
EREMOTEIO = 121

# Firmware built on newlib puts its own numbers on the wire.
NEWLIB_ETIMEDOUT = 116
NEWLIB_EMSGSIZE = 122

_NAMES = {
    EPERM: ("EPERM", "interface not available"),
    ENOENT: ("ENOENT", "unlinked"),
    EIO: ("EIO", "input/output error"),
    ENOMEM: ("ENOMEM", "out of memory"),
    EACCES: ("EACCES", "access denied"),
    EBUSY: ("EBUSY", "busy"),
    EXDEV: ("EXDEV", "isochronous packet not done"),
    ENODEV: ("ENODEV", "no such device"),
    EINVAL: ("EINVAL", "invalid request"),
    EPIPE: ("EPIPE", "stall"),
    ETIME: ("ETIME", "no response from the device"),
    EPROTO: ("EPROTO", "protocol error, no answer or bad CRC"),
    EOVERFLOW: ("EOVERFLOW", "babble, more data than asked for"),
    EILSEQ: ("EILSEQ", "CRC mismatch"),
    EMSGSIZE: ("EMSGSIZE", "transfer too large"),
    EOPNOTSUPP: ("EOPNOTSUPP", "not supported"),
    ECONNRESET: ("ECONNRESET", "unlinked"),
    ESHUTDOWN: ("ESHUTDOWN", "unplugged, or the connection lost"),
    ETIMEDOUT: ("ETIMEDOUT", "timed out"),
    EINPROGRESS: ("EINPROGRESS", "pending"),
    EREMOTEIO: ("EREMOTEIO", "short read"),
    NEWLIB_ETIMEDOUT: ("ETIMEDOUT", "timed out (newlib number)"),
    NEWLIB_EMSGSIZE: ("EMSGSIZE", "transfer too large (newlib number)"),
}

#: Status of URBs whose device is not there any more.
GONE = frozenset({-ENODEV, -ESHUTDOWN})
#: Status of URBs that were unlinked.
UNLINKED = frozenset({-ENOENT, -ECONNRESET})
#: Status of URBs that ran out of time, in the server's own numbering.
TIMED_OUT = frozenset({-ETIMEDOUT, -NEWLIB_ETIMEDOUT})
#: Status of URBs longer than the server takes.
TOO_LARGE = frozenset({-EMSGSIZE, -NEWLIB_EMSGSIZE})


def is_known(status: int) -> bool:
    """Whether it is a status of Linux, or of newlib; else some server's own number."""
    return not status or -status in _NAMES


def status_name(status: int) -> str:
    """A status as a person reads it: `EPIPE (stall)`; 0 is `success`, an unknown one keeps its number."""
    if status == 0:
        return "success"
    name, meaning = _NAMES.get(-status, ("", ""))
    return f"{name} ({meaning})" if name else f"status {status}"
